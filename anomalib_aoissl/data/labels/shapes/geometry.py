# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Boxes, ellipses and run lengths to rings and masks, as several formats have them."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

_ELLIPSE_POINTS = 180  # the polygon's area is then 0.02 % below the ellipse's


def box(left: float, top: float, right: float, bottom: float, degrees: float = 0.0) -> np.ndarray:
    """Return the ring ``[4, 2]`` of a box in px, turned clockwise about its centre."""
    ring = np.array([[left, top], [right, top], [right, bottom], [left, bottom]], dtype=np.float64)
    return turned(ring, degrees, ((left + right) / 2, (top + bottom) / 2))


def ellipse(x: float, y: float, radius_x: float, radius_y: float, degrees: float = 0.0) -> np.ndarray:
    """Return the ring of an ellipse about (x, y) in px, turned clockwise about its centre."""
    angle = np.linspace(0, 2 * np.pi, _ELLIPSE_POINTS, endpoint=False)
    ring = np.stack([x + radius_x * np.cos(angle), y + radius_y * np.sin(angle)], axis=1)
    return turned(ring, degrees, (x, y))


def area_of(ring: np.ndarray) -> float:
    """Return the signed area of a ring ``[N, 2]``, px; along edges outer rings are positive, holes negative."""
    x, y = ring[:, 0], ring[:, 1]
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) / 2


def contains(outer: np.ndarray, inner: np.ndarray) -> bool:
    """Tell whether a larger ring ``[N, 2]`` has another in it, whose points may lie a pixel outside (rounded)."""
    if len(outer) < 3 or not len(inner) or abs(area_of(inner)) >= abs(area_of(outer)):
        return False
    if (inner.min(axis=0) < outer.min(axis=0) - 1).any() or (inner.max(axis=0) > outer.max(axis=0) + 1).any():
        return False
    around = outer.astype(np.float32)
    return all(cv2.pointPolygonTest(around, (x, y), measureDist=True) >= -1 for x, y in inner.tolist())


def turned(ring: np.ndarray, degrees: float, about: tuple[float, float]) -> np.ndarray:
    """Return a ring ``[N, 2]`` turned clockwise, as seen on the screen, about a point."""
    if not degrees:
        return ring
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return (ring - about) @ np.array([[cos, sin], [-sin, cos]]) + about


def of_runs(counts: Sequence[int] | np.ndarray, size: tuple[int, int], *, columns: bool) -> np.ndarray:
    """Return the mask ``[h, w]`` bool of run lengths that begin with those outside.

    Args:
        counts: Lengths of the runs, outside and inside by turns.
        size: (h, w).
        columns: Whether the runs go down the columns (COCO) or along the rows (CVAT).

    Raises:
        ValueError: If they do not fill the mask.
    """
    runs = np.asarray(counts, dtype=np.int64)
    if (runs < 0).any() or runs.sum() != size[0] * size[1]:
        msg = f"its run lengths sum to {int(runs.sum())} px, not to {size[0]}x{size[1]}"
        raise ValueError(msg)
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return flat.reshape(size[::-1]).T if columns else flat.reshape(size)


def decoded_counts(text: str) -> list[int]:
    """Return the run lengths of a compressed COCO text [0].

    Each number is written in groups of 5 bits, lowest first; from the third on it is the difference from the one before
    the last.

    [0]: cocodataset/cocoapi, common/maskApi.c, rleFrString.

    Raises:
        ValueError: If the text ends within a number.
    """
    counts: list[int] = []
    value = shift = 0
    for sign in text.encode("ascii"):
        group = sign - 48
        value |= (group & 0x1F) << shift
        shift += 5
        if group & 0x20:
            continue
        if group & 0x10:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    if shift:
        msg = "its compressed run lengths end within a number"
        raise ValueError(msg)
    return counts
