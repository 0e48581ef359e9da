# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The loss of the decoder: cross-entropy weighted by class, plus Dice; ignored pixels (255) are never counted."""

from __future__ import annotations

import torch
from torch.nn import functional

from anomalib_aoissl.data.indices import IGNORE_INDEX


def segmentation_loss(scores: torch.Tensor, masks: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    """Return the sum of cross-entropy and Dice loss, a scalar; 0 where all pixels are ignored.

    Args:
        scores: Before the softmax, ``[B, C, H, W]``.
        masks: Class indices ``[B, H, W]``, 255 is ignored.
        weights: Of the classes in the cross-entropy, ``[C]``; none for equal ones.
    """
    counted = masks != IGNORE_INDEX  # [B, H, W]
    if not bool(counted.any()):
        return scores.sum() * 0.0
    rows, labels = scores.movedim(1, -1)[counted].float(), masks[counted].long()  # [N, C], [N]
    return functional.cross_entropy(rows, labels, weights) + dice_loss(scores.float().softmax(dim=1), masks)


def dice_loss(probabilities: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Return 1 - the soft Dice coefficient [0], averaged over the classes that the masks name.

    A class's term depends on its share of itself, not of the image, so that a thin wire counts as much as a die.

    [0]: Milletari et al., V-Net, 2016, arXiv 1606.04797; differs in that the sums are not of squares.

    Args:
        probabilities: Of the classes, ``[B, C, H, W]``.
        masks: Class indices ``[B, H, W]``, 255 is ignored; where all are, the loss is 0.
    """
    counted = masks != IGNORE_INDEX  # [B, H, W]
    probabilities = probabilities.movedim(1, -1)[counted]  # [N, C]
    true = functional.one_hot(masks[counted].long(), probabilities.shape[1]).to(probabilities.dtype)  # [N, C]
    shared, predicted, named = (probabilities * true).sum(dim=0), probabilities.sum(dim=0), true.sum(dim=0)
    coefficients = 2 * shared / (predicted + named)
    return 1 - coefficients[named > 0].mean() if bool(counted.any()) else probabilities.sum()


def root_weights(counts: torch.Tensor) -> torch.Tensor:
    """Return class weights ``[C]``, the root of the inverse of each class's pixels ``[C]``.

    They are 1 on average over the classes that have pixels. Rare classes are found without
    being given every doubtful pixel. A class without pixels has the largest weight: it may occur in images that were
    not counted.
    """
    seen = counts > 0
    weights = counts.clamp_min(1).double().rsqrt()
    weights = torch.where(seen, weights, weights[seen].amax())
    return (weights / weights[seen].mean()).float()
