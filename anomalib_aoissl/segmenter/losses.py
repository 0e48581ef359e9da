# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Losses for class-index masks: cross-entropy, Dice, Jaccard, Lovász, and their sums; 255 is never counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional

from anomalib_aoissl.data.indices import IGNORE_INDEX

__all__ = ["LOSSES", "SegmentationLoss", "cross_entropy", "dice", "jaccard", "lovasz"]


class SegmentationLoss(nn.Module):
    """A loss by its name, or a sum of some.

    Args:
        name: "cross_entropy", "dice", "jaccard", "lovasz", or several joined by "+".
        weights: Of the classes, in their order; none for equal ones.

    Raises:
        ValueError: If a name is unknown, or no weight is above 0.
    """

    def __init__(self, name: str = "cross_entropy+dice", weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.terms = [part.strip() for part in name.split("+")]
        unknown = [part for part in self.terms if part not in LOSSES]
        if unknown:
            msg = f"loss={name!r}: {unknown} is unknown. The losses are {list(LOSSES)}; join several with '+'."
            raise ValueError(msg)
        if weights is not None and (min(weights) < 0 or not max(weights) > 0):
            msg = f"class_weights={list(weights)} must not be negative, and at least one must be greater than 0."
            raise ValueError(msg)
        # No buffer: averaged weights pair a model's buffers with those of its copy, which knows no class weights yet.
        self.weights = None if weights is None else torch.tensor([float(weight) for weight in weights])

    def forward(self, scores: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Return the loss, a scalar; 0 where all pixels are ignored.

        Args:
            scores: Before the softmax, ``[B, classes, H, W]``.
            masks: Class indices ``[B, H, W]``, 255 is ignored.
        """
        counted = masks != IGNORE_INDEX  # [B, H, W]
        rows = scores.movedim(1, -1)[counted].float()  # [N, classes]
        labels = masks[counted].long()  # [N]
        if not len(labels):
            return scores.sum() * 0.0
        weights = None if self.weights is None else self.weights.to(rows.device)
        return torch.stack([LOSSES[term](rows, labels, weights) for term in self.terms]).sum()


def cross_entropy(scores: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    """Return the mean over pixels, weighted by each pixel's class, of scores ``[N, classes]`` and labels ``[N]``."""
    total = functional.cross_entropy(scores, labels, weights, reduction="sum")
    mass = len(labels) if weights is None else weights[labels].sum().clamp_min(1e-6)
    return total / mass


def dice(scores: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    """Return 1 - the soft Dice coefficient [0], averaged over the classes that the labels name.

    A class's term depends on its share of itself, not of the image, so that a thin wire counts as much as a die.

    [0]: Milletari et al., V-Net, 2016, arXiv 1606.04797; differs in that the sums are not of squares.
    """
    shared, predicted, true = _overlap(scores, labels)
    return _mean_over_classes(1 - 2 * shared / (predicted + true), true > 0, weights)


def jaccard(scores: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    """Return 1 - the soft intersection over union, averaged over the classes that the labels name."""
    shared, predicted, true = _overlap(scores, labels)
    return _mean_over_classes(1 - shared / (predicted + true - shared), true > 0, weights)


def lovasz(scores: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    """Return the Lovász extension of 1 - intersection over union [0], averaged over the classes that the labels name.

    The errors are weighed by how much each would lower the intersection over union if all larger ones were made too.

    [0]: Berman et al., The Lovász-Softmax loss, 2018, arXiv 1705.08790.
    """
    true = functional.one_hot(labels, scores.shape[1]).to(scores.dtype)  # [N, classes]
    errors, order = (true - scores.softmax(dim=1)).abs().sort(dim=0, descending=True)
    ordered = true.gather(0, order)
    total = true.sum(dim=0)  # [classes]
    lost = 1 - (total - ordered.cumsum(dim=0)) / (total + (1 - ordered).cumsum(dim=0))  # of the IoU, by the n largest
    gradient = lost.diff(dim=0, prepend=torch.zeros_like(lost[:1]))
    return _mean_over_classes((errors * gradient).sum(dim=0), total > 0, weights)


LOSSES: dict[str, Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]] = {
    "cross_entropy": cross_entropy,
    "dice": dice,
    "jaccard": jaccard,
    "lovasz": lovasz,
}
"""Scores before the softmax ``[N, classes]``, labels ``[N]`` and class weights to a scalar, by name."""


def _overlap(scores: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return for each class the probability on its pixels, on all pixels, and its number of pixels, ``[classes]``."""
    probabilities = scores.softmax(dim=1)
    true = functional.one_hot(labels, scores.shape[1]).to(probabilities.dtype)  # [N, classes]
    return (probabilities * true).sum(dim=0), probabilities.sum(dim=0), true.sum(dim=0)


def _mean_over_classes(values: torch.Tensor, present: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    """Return the weighted mean of ``[classes]`` over those that are present; 0 where their weights are."""
    shares = present.to(values.dtype) if weights is None else weights * present
    return (values * shares).sum() / shares.sum().clamp_min(1e-6)
