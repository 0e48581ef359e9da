# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Shapes to class-index masks: a pixel belongs to a shape when its centre lies in it.

Where shapes overlap, the one of the higher layer (z-order) is on top; within a layer the later one of the file, as the
tools show it, or with ``on_top="area"`` the smaller one. Shapes are cut at the edge of the picture.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from anomalib_aoissl.data.indices import BACKGROUND_INDEX

from ..content import Shape

OnTop = Literal["file", "area"]


def fill(rings: Sequence[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """Return the pixels ``[H, W]`` bool whose centre lies in an odd number of the rings (even-odd rule).

    Args:
        rings: ``[N, 2]`` (x, y) in px each, closed by itself.
        size: (height, width) in px.
    """
    height, width = size
    places = [np.zeros(0, dtype=np.int64)]
    for ring in rings:
        rows, columns = _crossings(ring, height)
        places.append(rows * (width + 1) + np.clip(columns, 0, width))
    toggles = np.bincount(np.concatenate(places), minlength=height * (width + 1))
    return (toggles.reshape(height, width + 1).cumsum(axis=1)[:, :width] & 1).astype(bool)


def _crossings(ring: np.ndarray, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Return row and first column behind it of each crossing of the ring with a line of pixel centres."""
    start, end = ring, np.roll(ring, -1, axis=0)
    low, high = np.minimum(start[:, 1], end[:, 1]), np.maximum(start[:, 1], end[:, 1])
    first = np.clip(np.ceil(low - 0.5), 0, height).astype(np.int64)
    count = np.clip(np.ceil(high - 0.5), 0, height).astype(np.int64) - first
    edge = np.repeat(np.arange(len(ring)), count)
    rows = first[edge] + np.arange(len(edge)) - np.repeat(count.cumsum() - count, count)
    way = (rows + 0.5 - start[edge, 1]) / (end[edge, 1] - start[edge, 1])
    x = start[edge, 0] + way * (end[edge, 0] - start[edge, 0])
    return rows, np.ceil(np.clip(x, -1, 2**31) - 0.5).astype(np.int64)


def pixels(shape: Shape, size: tuple[int, int]) -> tuple[slice, slice, np.ndarray]:
    """Return rows, columns and the mask bool of a shape's part of the picture; empty where it lies outside.

    Raises:
        ValueError: If its mask cannot be decoded.
    """
    if shape.mask is not None:
        mask, (top, left) = shape.mask(), shape.corner
        inner = mask[max(0, -top) :, max(0, -left) :]
        top, left = max(0, top), max(0, left)
        inner = inner[: max(0, size[0] - top), : max(0, size[1] - left)]
    elif not any(map(len, shape.rings)):
        top, left, inner = 0, 0, np.zeros((0, 0), dtype=bool)
    else:
        every = np.concatenate(shape.rings)
        (left, top), (right, bottom) = np.floor(every.min(axis=0)), np.ceil(every.max(axis=0))
        left, right = (int(np.clip(value, 0, size[1])) for value in (left, right))
        top, bottom = (int(np.clip(value, 0, size[0])) for value in (top, bottom))
        rings = [ring - (left, top) for ring in shape.rings]
        part = (bottom - top, right - left)
        groups = [rings] if shape.holes else [[ring] for ring in rings]
        inner = np.zeros(part, dtype=bool)
        for group in groups:
            inner |= fill(group, part)
    return slice(top, top + inner.shape[0]), slice(left, left + inner.shape[1]), inner


def rasterized(
    shapes: Sequence[Shape], lookup: Mapping[str, int | None], size: tuple[int, int], on_top: OnTop = "file"
) -> tuple[np.ndarray, Counter[tuple[str, str]], list[Shape]]:
    """Return the mask ``[H, W]`` uint8, px that were labelled as (top, below), and the shapes that have no pixel.

    Args:
        shapes: In the order of the file.
        lookup: Class index of each label; None where shapes of the label are left out.
        size: (height, width) in px.
        on_top: Which of two shapes of a layer is on top: the later of the file, or the smaller.
    """
    mask = np.full(size, BACKGROUND_INDEX, dtype=np.uint8)
    below = np.zeros(size, dtype=np.uint16)  # 1 + number of the shape on top
    drawn: list[tuple[int, int, int, Shape, tuple[slice, slice], np.ndarray]] = []
    empty = []
    for shape in shapes:
        rows, columns, inside = pixels(shape, size)
        area = int(inside.sum())
        if not area:
            empty.append(shape)
        elif lookup[shape.label] is not None:
            drawn.append((shape.layer, -area if on_top == "area" else 0, len(drawn), shape, (rows, columns), inside))
    overlaps: Counter[tuple[str, str]] = Counter()
    labels: list[str] = list(dict.fromkeys(shape.label for shape in shapes))
    for *_, shape, place, inside in sorted(drawn, key=lambda entry: entry[:3]):
        covered = np.bincount(below[place][inside], minlength=1)
        for number in np.flatnonzero(covered[1:]):
            if labels[number] != shape.label:
                overlaps[shape.label, labels[number]] += int(covered[1 + number])
        below[place][inside] = 1 + labels.index(shape.label)
        mask[place][inside] = lookup[shape.label] or BACKGROUND_INDEX
    return mask, overlaps, empty
