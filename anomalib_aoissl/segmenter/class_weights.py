# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""How often each class occurs in the training masks, and the weights that follow from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from anomalib_aoissl.data.dataset import SegmentationDataset
from anomalib_aoissl.data.indices import IGNORE_INDEX

__all__ = ["BALANCES", "balanced_weights", "class_weights", "count_pixels"]

BALANCES = ("balanced", "root")
"""Words for weights that follow from the pixels of the classes."""


def count_pixels(dataset: Any, num_classes: int) -> torch.Tensor:
    """Return the pixels of each class ``[classes]`` int64 in the dataset's masks, ignored pixels left out.

    Each mask is read once: from its file, without the image, or from the item where the dataset has no files.
    """
    counts = torch.zeros(IGNORE_INDEX + 1, dtype=torch.int64)
    for mask in _masks(dataset):
        counts += torch.bincount(mask.flatten().long(), minlength=IGNORE_INDEX + 1)
    return counts[:num_classes]


def balanced_weights(counts: torch.Tensor) -> torch.Tensor:
    """Return weights ``[classes]`` in inverse proportion to the pixels, pixels / (classes * pixels of the class).

    A class without pixels has weight 0 and does not count as a class.
    """
    present = counts > 0
    weights = counts.sum() / (present.sum() * counts.clamp_min(1).double())
    return torch.where(present, weights, 0.0).float()


def class_weights(
    setting: str | Sequence[float] | None, counts: torch.Tensor, class_names: Sequence[str]
) -> list[float] | None:
    """Return the weights that the setting asks for: none, the given ones, or from the pixel counts.

    "balanced" weighs each class by the inverse of its pixels, so that all count the same in sum; "root" by the root of
    that, which finds rare classes without giving them every doubtful pixel.

    Raises:
        ValueError: If it is another word, or there are not as many weights as classes.
    """
    if setting is None:
        return None
    if isinstance(setting, str):
        if setting not in BALANCES:
            msg = f"class_weights={setting!r} must be one of {list(BALANCES)}, a list of numbers, or left out."
            raise ValueError(msg)
        weights = balanced_weights(counts)
        return (weights.sqrt() if setting == "root" else weights).tolist()
    if len(setting) != len(class_names):
        msg = (
            f"class_weights={list(setting)} has {len(setting)} numbers, the data has {len(class_names)} classes: "
            f"{list(class_names)}. Give one for each, the background first."
        )
        raise ValueError(msg)
    return [float(weight) for weight in setting]


def _masks(dataset: Any) -> Iterator[torch.Tensor]:
    """Give each class-index mask of the dataset, not augmented where it has files."""
    if isinstance(dataset, SegmentationDataset):
        masks = (dataset._mask(path) for path in dataset.samples["mask_path"])
    else:
        masks = (dataset[index].gt_mask for index in range(len(dataset)))
    yield from (mask for mask in masks if mask is not None)
