# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Drawing labelled pixels of an image, and reading maps at them; without torch."""

from __future__ import annotations

import numpy as np

from anomalib_aoissl.data.indices import IGNORE_INDEX

from .stored import stored_values

STRIDE = 4
"""Pixels of the image, across and down, that one pixel of the coarse maps covers."""

RADII = (2.0, 5.0, 10.0, 20.0, 40.0)
"""Widths of the Gaussians, px, with which autocontext blurs the first network's class probabilities."""

CONTEXT_SCALE = 0.25
"""What a probability is divided by as a feature, in place of its standard deviation."""


def draw_points(mask: np.ndarray, number: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return labelled pixels ``[N, 2]`` (row, column) of a mask ``[H, W]``, and how many ``[N]`` each stands for.

    Each class has a share of the pixels in proportion to the root of how frequent it is; with replacement. Ignored
    pixels (255) are never drawn; without labelled ones the result is empty.
    """
    flat = mask.reshape(-1)
    places = [np.flatnonzero(flat == index) for index in np.unique(flat) if index != IGNORE_INDEX]
    roots = np.sqrt([len(place) for place in places])
    drawn, weights = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
    for place, root in zip(places, roots, strict=True):
        count = max(1, int(number * root / roots.sum()))
        drawn.append(place[random.integers(0, len(place), count)])
        weights.append(np.full(count, len(place) / count, np.float32))
    rows, columns = np.divmod(np.concatenate(drawn), mask.shape[1])
    return np.stack([rows, columns], axis=1), np.concatenate(weights)


def pixel_values(fine: np.ndarray, coarse: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return the features ``[N, Ff + Fc]`` of pixels ``[N, 2]`` (row, column).

    Args:
        fine: ``[Ff, H, W]``.
        coarse: ``[Fc, h, w]``, at each fourth pixel.
        points: The pixels.
    """
    return np.concatenate([fine[:, points[:, 0], points[:, 1]].T, at_points(coarse, points)], axis=1)


def context_values(probabilities: np.ndarray, blurred: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return the stored features of autocontext ``[N, C + E]`` of pixels ``[N, 2]``.

    Args:
        probabilities: ``[C, H, W]``, the first network's.
        blurred: ``[E, h, w]``, its context maps.
        points: The pixels.
    """
    return stored_values(pixel_values(probabilities, blurred, points), np.float32(0), np.float32(CONTEXT_SCALE))


def at_points(coarse: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return the values ``[N, F]`` of coarse maps ``[F, h, w]`` at pixels ``[N, 2]`` (row, column), bilinear."""
    limits = np.array(coarse.shape[-2:], np.float32) - 1
    places = np.clip((points.astype(np.float32) + 0.5) / STRIDE - 0.5, 0, limits)
    low = np.minimum(places.astype(np.int64), np.maximum(limits - 1, 0).astype(np.int64))
    high, part = np.minimum(low + 1, limits.astype(np.int64)), (places - low)[:, :, None].astype(np.float32)
    (top, left), (bottom, right) = low.T, high.T
    maps = coarse.transpose(1, 2, 0)
    upper = maps[top, left] * (1 - part[:, 1]) + maps[top, right] * part[:, 1]
    lower = maps[bottom, left] * (1 - part[:, 1]) + maps[bottom, right] * part[:, 1]
    values: np.ndarray = upper * (1 - part[:, 0]) + lower * part[:, 0]
    return values


def blur(length: int, sigma: float) -> np.ndarray:
    """Return the matrix ``[length, length]`` of a Gaussian along an axis; beyond the ends there is nothing."""
    places = np.arange(length)
    weights = np.exp(-0.5 * ((places[:, None] - places) / sigma) ** 2)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
