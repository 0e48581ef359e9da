# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The light of a whole picture, by which each of its tiles is standardised; needs no torch."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np

_Planes = TypeVar("_Planes", bound=Any)  # of numpy or of torch

DARK = 0.1
"""Added to intensities before the logarithm: what is darker is noise more than light."""

LEAST_DEVIATION = 1e-3
"""Added to the standard deviation, so that an even picture stays even."""

FIXED_LIGHT = "fixed"
"""Name of light that stays as it is."""

FIXED_MOMENTS = (np.log(DARK * (1 + DARK)) / 2, 0.2 * np.log((1 + DARK) / DARK))
"""Mean and deviation that stand for those of a picture where light stays as it is: intensities 0 and 1 become 0 and 1,
since the deviation becomes 0.2 and the mean 0.5."""

Moments = tuple[np.ndarray, np.ndarray]
"""Mean and deviation."""

_STRIP = 1 << 22  # values at once
_SEEN = 512  # rows and columns, at most, of the pixels that stand for a picture


def thinned(planes: _Planes) -> _Planes:
    """Return evenly taken pixels of planes ``[C, H, W]``, which tell the picture's light under another lamp."""
    down, across = (-(-side // _SEEN) for side in planes.shape[-2:])
    seen: _Planes = planes[:, ::down, ::across]
    return seen


def light_of(planes: np.ndarray, *, joint: bool = False) -> Moments:
    """Return mean and deviation of the logarithms of planes ``[C, H, W]`` in [0, 1], each ``[1, C, 1, 1]`` float32.

    What `standardize_light` takes out of a picture; ``[1, 1, 1, 1]`` of all planes where they are ``joint``.
    """
    totals, squares = np.zeros(len(planes)), np.zeros(len(planes))
    rows = max(1, _STRIP // max(planes.shape[0] * planes.shape[2], 1))
    for first in range(0, planes.shape[1], rows):
        values = np.log(np.maximum(planes[:, first : first + rows], 0) + np.float32(DARK))
        totals += values.sum(axis=(1, 2), dtype=np.float64)
        squares += np.square(values, dtype=np.float64).sum(axis=(1, 2))
    number = planes.shape[1] * planes.shape[2]
    if joint:
        totals, squares, number = totals.sum(keepdims=True), squares.sum(keepdims=True), planes.size
    mean = totals / number
    deviation = np.sqrt(np.maximum(squares / number - mean**2, 0)) + LEAST_DEVIATION
    return _shaped(mean), _shaped(deviation)


def fixed_light(planes: np.ndarray) -> Moments:
    """Return `FIXED_MOMENTS` for each of planes ``[C, H, W]``, as `light_of` returns those of a picture."""
    mean, deviation = (_shaped(np.full(len(planes), value)) for value in FIXED_MOMENTS)
    return mean, deviation


def _shaped(values: np.ndarray) -> np.ndarray:
    """Return values ``[C]`` as ``[1, C, 1, 1]`` float32."""
    return values.reshape(1, -1, 1, 1).astype(np.float32)
