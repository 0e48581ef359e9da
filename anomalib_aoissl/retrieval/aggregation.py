# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""From neighbours to classes: what each neighbour's vote weighs, by name, and what it votes for."""

from __future__ import annotations

import torch

AGGREGATIONS = ("attention", "similarity", "majority")
"""Names of the weights that `vote_weights` knows."""

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


def repetitions(counts: torch.Tensor, k: int) -> torch.Tensor:
    """Return how often each neighbour ``[Q, k]`` votes in a condensed bank, until k votes are cast.

    A row that stands for n patches votes as often as the square root of n. Between 1, with which the k neighbours
    would reach farther in a smaller bank, and n, with which the many copies of the background would outvote the rest.

    Args:
        counts: ``[Q, k]``, patches that each neighbour stands for, the nearest first.
        k: Votes of a query.
    """
    votes = counts.to(torch.float32).sqrt()
    before = votes.cumsum(dim=-1) - votes
    return torch.minimum(votes, (k - before).clamp(min=0.0))


def combine(weights: torch.Tensor, labels: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Return for each pixel the class with the largest sum of weights, ``[Q, L]`` uint8.

    Pixels of a neighbour that are ignored (255) have no class and so do not vote; where no neighbour votes, the result
    is the background. Equal sums go to the smaller index.

    Args:
        weights: ``[Q, k]``, of each neighbour.
        labels: ``[Q, k, L]`` uint8 class indices of each neighbour's pixels.
        num_classes: C.
    """
    # One class at a time: [Q, k, L] of floats for all classes at once would need C times the memory. Floats that are
    # compared into floats take half the time of booleans that become floats.
    rows, classes = weights.unsqueeze(1), labels.to(weights.dtype)  # [Q, 1, k], [Q, k, L]
    best = torch.bmm(rows, classes.clone().eq_(0)).squeeze(1)  # [Q, L]
    chosen = torch.zeros_like(best)
    for index in range(1, num_classes):
        score = torch.bmm(rows, classes.clone().eq_(index)).squeeze(1)
        chosen = torch.where(score > best, float(index), chosen)
        best = torch.maximum(best, score)
    return chosen.to(torch.uint8)


def combine_averages(weights: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """Return for each query the class ``[Q]`` uint8 with the largest weighted share of its neighbours' pixels.

    Args:
        weights: ``[Q, k]``, of each neighbour.
        shares: ``[Q, k, C]``, share of each neighbour's pixels that each class has.
    """
    return torch.bmm(weights.unsqueeze(1), shares).squeeze(1).argmax(dim=-1).to(torch.uint8)


def class_shares(labels: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Return the share of pixels ``[N, C]`` of labels ``[N, L]`` that each class has; ignored pixels have none."""
    return torch.stack([(labels == index).to(torch.float32).mean(dim=-1) for index in range(num_classes)], dim=-1)
