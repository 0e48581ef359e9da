# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""IoU of each class and their mean, pixels pooled over the test images; each image's own mean beside it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from anomalib_aoissl.data.indices import IGNORE_INDEX

__all__ = ["confusion", "mean_of", "score"]


def confusion(predicted: np.ndarray, truth: np.ndarray, classes: int) -> np.ndarray:
    """Return counts ``[classes, classes]`` of pixels by true and predicted class; pixels of truth 255 do not count."""
    counted = truth != IGNORE_INDEX
    pairs = truth[counted].astype(np.int64) * classes + predicted[counted].astype(np.int64)
    counts: np.ndarray = np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)
    return counts


def class_iou(counts: np.ndarray) -> np.ndarray:
    """Return the IoU ``[classes]``; NaN for a class that is neither there nor predicted."""
    hits = np.diag(counts).astype(float)
    union = counts.sum(axis=0) + counts.sum(axis=1) - hits
    return np.divide(hits, union, out=np.full(len(hits), np.nan), where=union > 0)


def mean_of(counts: np.ndarray) -> float:
    """Return the mean IoU of the classes that are there or predicted."""
    return float(np.nanmean(class_iou(counts)))


def score(
    predicted: Sequence[np.ndarray], truth: Sequence[np.ndarray], class_names: Sequence[str]
) -> dict[str, object]:
    """Return ``mean_iou`` and ``class_iou`` by name, pixels pooled, and ``image_iou``, the mean of each image.

    Args:
        predicted: Class indices ``[H, W]`` of each image.
        truth: The masks, 255 where nothing counts.
        class_names: Background first.
    """
    each = [confusion(p, t, len(class_names)) for p, t in zip(predicted, truth, strict=True)]
    pooled = sum(each[1:], each[0])
    values = class_iou(pooled)
    named = {name: round(float(v), 5) for name, v in zip(class_names, values, strict=True) if not np.isnan(v)}
    return {
        "mean_iou": mean_of(pooled),
        "class_iou": named,
        "image_iou": [round(mean_of(counts), 4) for counts in each],
        "test_images": len(each),
    }
