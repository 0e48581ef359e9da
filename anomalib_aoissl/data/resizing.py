# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""A mask at another size, each pixel that of the nearest; without torch.

Both functions take the pixel in which the new one's centre lies. Where it lies between two pixels, they may differ.
"""

from __future__ import annotations

import numpy as np
from PIL import Image


def resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the mask ``[H, W]`` at (height, width) px, by Pillow: fast, for masks that are shown or written."""
    image = Image.fromarray(np.ascontiguousarray(mask))
    return np.array(image.resize((size[1], size[0]), Image.Resampling.NEAREST))


def resize_labels(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the mask ``[H, W]`` at (height, width) px, pixel for pixel as torch's "nearest-exact": for labels."""
    return mask[np.ix_(*_nearest(mask.shape, size))]


def _nearest(shape: tuple[int, ...], size: tuple[int, int]) -> list[np.ndarray]:
    """Return the rows and the columns in which the centres of the new pixels lie."""
    pairs = zip(shape, size, strict=True)
    return [
        np.minimum(((np.arange(new, dtype=np.float32) + 0.5) * np.float32(old / new)).astype(np.int64), old - 1)
        for old, new in pairs
    ]
