# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What a fit says of the labelled images: pixels of each class, and classes that are taken for each other."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch

from anomalib_aoissl.data.indices import IGNORE_INDEX

from .labelled import LabelledImage

__all__ = ["pixel_counts", "said_counts", "warn_of_confusion"]

logger = logging.getLogger(__name__)

_CONFUSED = 0.3
"""Share of a class's left-out pixels taken for one other class from which a user is told."""

_MOST_PAIRS = 3


def pixel_counts(images: Sequence[LabelledImage], classes: int) -> torch.Tensor:
    """Return the labelled pixels ``[C]`` of each class."""
    counts = torch.zeros(IGNORE_INDEX + 1, dtype=torch.int64)
    for image in images:
        counts += torch.bincount(image.mask.flatten().long(), minlength=IGNORE_INDEX + 1)
    return counts[:classes]


def said_counts(counts: torch.Tensor, names: Sequence[str]) -> str:
    """Return index, name and share of each class that there is.

    Who named the classes without the background sees here that another class has its index.
    """
    shares = (counts / counts.sum().clamp(min=1)).tolist()
    return ", ".join(f"{index} {names[index]} {share:.2%}" for index, share in enumerate(shares) if share)


def warn_of_confusion(confusion: np.ndarray, names: Sequence[str]) -> None:
    """Warn of classes that networks take for another one in images that they were not fitted to.

    Args:
        confusion: ``[C, C]``, pixels of each class that are predicted as each.
        names: Of the classes.
    """
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1e-9)
    np.fill_diagonal(shares, 0)
    pairs = np.stack(np.unravel_index(np.argsort(-shares, axis=None), shares.shape), axis=1)[:_MOST_PAIRS]
    said = [f"{shares[a, b]:.0%} of {names[a]} for {names[b]}" for a, b in pairs if shares[a, b] >= _CONFUSED]
    if said:
        logger.warning(
            "In labelled images that were left out, the pixel head takes %s. Label more images that show them. Where "
            "they differ by grey level alone, set views.light to fixed; by direction alone, views.turned to false.",
            ", ".join(said),
        )
