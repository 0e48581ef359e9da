# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""From neighbours to classes: what each neighbour's vote weighs, by name, and the votes for each class."""

from __future__ import annotations

import torch
from torch.compiler import is_exporting

AGGREGATIONS = ("attention", "similarity")
"""Names of the weights that `vote_weights` knows."""


def vote_weights(similarities: torch.Tensor, aggregation: str, temperature: float) -> torch.Tensor:
    """Return the weight ``[Q, k]`` of each neighbour's vote; only the weights of one query compare.

    "attention" is the softmax of the similarities over the temperature, "similarity" the similarities themselves,
    those below 0 as next to nothing [0].

    [0]: AOI-SSL, 2026, arXiv 2605.12430.

    Args:
        similarities: ``[Q, k]`` cosine similarities of the neighbours.
        aggregation: One of `AGGREGATIONS`.
        temperature: Of the softmax.
    """
    if aggregation == "attention":
        return torch.softmax(similarities / temperature, dim=-1)
    return similarities.clamp(min=1e-6)


def repetitions(counts: torch.Tensor, k: int, aggregation: str) -> torch.Tensor:
    """Return how often each neighbour ``[Q, k]`` votes in a condensed bank.

    An entry that stands for n patches has sqrt(n) votes. With one vote for each entry, the k neighbours of a small bank
    would lie farther away. With n votes, the many patches of background would outvote all others. With "similarity", a
    far neighbour counts nearly as much as a near one: there, only the first k votes count.

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


def class_votes(weights: torch.Tensor, labels: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Return for each pixel the sum of the weights that vote for each class, ``[Q, C, L]``.

    Pixels of a neighbour that are ignored (255) have no class and so do not vote.

    Args:
        weights: ``[Q, k]`` of each neighbour.
        labels: ``[Q, k, L]`` uint8 class indices of each neighbour's pixels.
        num_classes: C.
    """
    # One class at a time: [Q, k, L] of floats for all classes at once would need C times the memory. Floats that are
    # compared into floats take half the time of booleans that become floats; so does a choice in an exported graph.
    classes = labels.to(weights.dtype)  # [Q, k, L]
    votes = []
    for index in range(num_classes):
        shown = torch.where(classes == index, 1.0, 0.0) if is_exporting() else classes.clone().eq_(index)
        votes.append(torch.bmm(weights.unsqueeze(1), shown))  # [Q, 1, L]
    return torch.cat(votes, dim=1)
