# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""An image, its labels or a region of it at an exported model's size, resized as its graph does it; needs no torch."""

from __future__ import annotations

import numpy as np

from anomalib_aoissl.data.resizing import resize_labels


def resize_planes(planes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return planes ``[C, H, W]`` at (height, width) px, antialiased as `preprocessing.antialiased_resize` does."""
    rows, columns = (_triangle_weights(old, new) for old, new in zip(planes.shape[-2:], size, strict=True))
    return np.asarray(rows @ planes.astype(np.float32) @ columns.T)


def _triangle_weights(length: int, target: int) -> np.ndarray:
    """Return the weights ``[target, length]`` of a one-dimensional antialiased linear resize."""
    inputs, outputs = np.arange(length), np.arange(target)[:, np.newaxis]
    distance = np.abs((2 * inputs + 1) * target - (2 * outputs + 1) * length)
    weights = np.maximum(2 * max(length, target) - distance, 0).astype(np.float32)
    return weights / weights.sum(axis=1, keepdims=True)


def resize_region(region: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the region ``[H, W]`` bool at (height, width) px; of the smallest region a pixel is left."""
    rows, columns = region.nonzero()
    scaled = resize_labels(region, size)
    if not scaled.any():
        scaled[rows * size[0] // region.shape[0], columns * size[1] // region.shape[1]] = True
    return scaled
