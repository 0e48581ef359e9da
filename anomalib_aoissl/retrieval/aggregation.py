# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""From neighbours to classes: what each neighbour's vote weighs, by name, and what it votes for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch.compiler import is_exporting

AGGREGATIONS = ("attention", "similarity", "majority")
"""Names of the weights that `vote_weights` knows."""

NEIGHBOURS, TEMPERATURE = 12, 0.02
"""k and the temperature of "attention" where nothing is said; rows are learned for a vote with these."""

LABELS = ("complete", "average")
"""What neighbours vote for: each pixel's own label, or the classes' shares of the whole patch."""


def check_aggregation(aggregation: str, labels: str) -> None:
    """Refuse names that do not exist.

    Raises:
        ValueError: If one of them does not.
    """
    for argument, name, known in (("aggregation", aggregation, AGGREGATIONS), ("labels", labels, LABELS)):
        if name not in known:
            msg = f"{argument}={name!r} is not known. It must be one of {list(known)}."
            raise ValueError(msg)


def check_class_rules(temperatures: Mapping[str, float], thresholds: Mapping[str, float], aggregation: str) -> None:
    """Refuse temperatures and thresholds of classes that are out of range.

    Raises:
        ValueError: If a temperature is not above 0 or has no softmax to act on, or a threshold lies outside of [0, 1].
    """
    if temperatures and aggregation != "attention":
        msg = (
            f"class_temperatures={dict(temperatures)} act in the softmax of 'attention', but aggregation is "
            f"{aggregation!r}. Leave them out, or use attention."
        )
        raise ValueError(msg)
    for name, temperature in temperatures.items():
        if not temperature > 0:
            msg = f"class_temperatures: the temperature {temperature} of {name!r} must be greater than 0."
            raise ValueError(msg)
    for name, threshold in thresholds.items():
        if not 0 <= threshold <= 1:
            msg = f"class_thresholds: the threshold {threshold} of {name!r} must be a share of the vote, 0 to 1."
            raise ValueError(msg)


def plain_rules(values: Mapping[str, float] | None) -> dict[str, float] | None:
    """Return values by class name as plain data that a checkpoint may hold."""
    return None if values is None else {str(name): float(value) for name, value in values.items()}


def check_class_names(rules: Mapping[str, Mapping[str, float]], class_names: Sequence[str]) -> None:
    """Refuse rules for classes that do not exist.

    Args:
        rules: Name of each argument to its values by class.
        class_names: Classes that exist.

    Raises:
        ValueError: If a rule names another class.
    """
    for argument, values in rules.items():
        unknown = [name for name in values if name not in class_names]
        if unknown:
            msg = f"{argument} names the classes {unknown}, which the data has not. Its classes: {list(class_names)}."
            raise ValueError(msg)


def class_values(values: Mapping[str, float], class_names: Sequence[str], default: float) -> list[float] | None:
    """Return the value of each class in the order of the classes; None where all have the default."""
    ordered = [float(values.get(name, default)) for name in class_names]
    return None if all(value == default for value in ordered) else ordered


def vote_weights(similarities: torch.Tensor, aggregation: str, temperature: float) -> torch.Tensor:
    """Return the weight ``[Q, k]`` of each neighbour's vote; only the weights of one query compare.

    "attention" is the softmax of the similarities over the temperature, "similarity" the similarities themselves,
    those below 0 as next to nothing [0], and "majority" gives each neighbour 1: numbers that every runtime adds up
    without rounding, so that equal votes are equal everywhere.

    [0]: AOI-SSL, 2026, arXiv 2605.12430.

    Args:
        similarities: ``[Q, k]`` cosine similarities of the neighbours.
        aggregation: One of `AGGREGATIONS`.
        temperature: Of the softmax.
    """
    if aggregation == "attention":
        return torch.softmax(similarities / temperature, dim=-1)
    return similarities.clamp(min=1e-6) if aggregation == "similarity" else torch.ones_like(similarities)


def repetitions(counts: torch.Tensor, k: int, aggregation: str) -> torch.Tensor:
    """Return how often each neighbour ``[Q, k]`` votes in a condensed bank.

    A row that stands for n patches votes as often as the square root of n. Between 1, with which the k neighbours
    would reach farther in a smaller bank, and n, with which the many copies of the background would outvote the rest.
    Where a neighbour far away weighs as much as a near one, in all but "attention", only until k votes are cast.

    Args:
        counts: ``[Q, k]``, patches that each neighbour stands for, the nearest first.
        k: Votes of a query.
        aggregation: One of `AGGREGATIONS`.
    """
    votes = counts.to(torch.float32).sqrt()
    if aggregation == "attention":
        return votes
    before = votes.cumsum(dim=-1) - votes
    return torch.minimum(votes, (k - before).clamp(min=0.0))


def class_weights(similarities: torch.Tensor, temperatures: Sequence[float]) -> torch.Tensor:
    """Return the weight ``[Q, k, C]`` of each neighbour's vote for each class, at that class's own temperature.

    A neighbour of similarity s that votes for the class c weighs exp((s - s_1) / t_c), s_1 the similarity of the
    nearest and t_c the temperature of c: a vote of the nearest weighs 1 for any class, and a class of a higher
    temperature is heard from farther. With one temperature for all it is the softmax up to a factor.

    Args:
        similarities: ``[Q, k]``, falling.
        temperatures: t_c of each class.
    """
    distances = similarities - similarities[:, :1]  # [Q, k], at most 0
    return torch.stack([(distances / temperature).exp() for temperature in temperatures], dim=-1)


def class_votes(weights: torch.Tensor, labels: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Return for each pixel the sum of the weights that vote for each class, ``[Q, L, C]``.

    Pixels of a neighbour that are ignored (255) have no class and so do not vote.

    Args:
        weights: ``[Q, k]`` of each neighbour, or ``[Q, k, C]`` of its vote for each class.
        labels: ``[Q, k, L]`` uint8 class indices of each neighbour's pixels.
        num_classes: C.
    """
    return votes_by_class(weights, labels, num_classes).transpose(1, 2)


def votes_by_class(weights: torch.Tensor, labels: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Return what `class_votes` does as ``[Q, C, L]``, the order in which memory is written."""
    # One class at a time: [Q, k, L] of floats for all classes at once would need C times the memory. Floats that are
    # compared into floats take half the time of booleans that become floats; so does a choice in an exported graph.
    classes = labels.to(weights.dtype)  # [Q, k, L]
    votes = []
    for index in range(num_classes):
        of_class = weights if weights.ndim == 2 else weights[..., index]  # [Q, k]
        shown = torch.where(classes == index, 1.0, 0.0) if is_exporting() else classes.clone().eq_(index)
        votes.append(torch.bmm(of_class.unsqueeze(1), shown))  # [Q, 1, L]
    return torch.cat(votes, dim=1)


def winners(votes: torch.Tensor, thresholds: Sequence[float] | None = None) -> torch.Tensor:
    """Return the class ``[...]`` uint8 with the most votes ``[..., C]``; equal votes go to the smaller index.

    With thresholds t_c a class stands for election only where its share of the votes reaches its threshold,
    v_c / (v_1 + ... + v_C) >= t_c; of those the one with the most votes wins. Where none does, and where nobody votes,
    the result is the background.
    """
    if thresholds is not None:
        limits = torch.tensor(thresholds, dtype=votes.dtype, device=votes.device) * votes.sum(dim=-1, keepdim=True)
        votes = torch.where(votes >= limits, votes, torch.full_like(votes, -1.0))
    if is_exporting() and votes.ndim == 3:  # runtimes are slow along a last axis that is short
        return votes.transpose(1, 2).argmax(dim=1).to(torch.uint8)
    return votes.argmax(dim=-1).to(torch.uint8)


def average_votes(weights: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """Return for each query the weighted sum ``[Q, C]`` of its neighbours' shares of each class.

    Args:
        weights: ``[Q, k]`` of each neighbour, or ``[Q, k, C]`` of its vote for each class.
        shares: ``[Q, k, C]``, share of each neighbour's pixels that each class has.
    """
    if weights.ndim == 3:
        return (weights * shares).sum(dim=1)
    return torch.bmm(weights.unsqueeze(1), shares).squeeze(1)


def class_shares(labels: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Return the share of pixels ``[N, C]`` of labels ``[N, L]`` that each class has; ignored pixels have none."""
    return torch.stack([(labels == index).to(torch.float32).mean(dim=-1) for index in range(num_classes)], dim=-1)
