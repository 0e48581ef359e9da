# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Class-index masks to polygons: one for each connected part, holes joined to it by a cut, areas kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from .geometry import area_of
from .joining import one_ring
from .rasterizing import fill

_TOLERANCES = (1.0, 0.75, 0.6, 0.5, 0.4, 0.3)  # px, tried in turn
_AREA, _MOVED = 0.005, 0.05  # shares of a part's area: its change, and its pixels that come or go
_CORNERS = np.array([[0, 0], [0, 1], [1, 1], [1, 0]])  # row, column where the edges right, down, left, up begin
_WAYS = np.array([[0, 1], [1, 0], [0, -1], [-1, 0]])  # right, down, left, up


def parts(mask: np.ndarray, index: int) -> Iterator[tuple[np.ndarray, int, tuple[int, int, int, int]]]:
    """Yield ring ``[N, 2]`` (x, y) in px, area in px and box (left, top, width, height) of each part of a class.

    Pixels that touch at a corner are of one part. The ring is simplified as far as the filled area changes by 0.5 % at
    most and 5 % of the pixels at most come or go.

    Args:
        mask: ``[H, W]`` uint8 class indices.
        index: The class.
    """
    here = (mask == index).astype(np.uint8)
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(here, connectivity=8)
    for number in range(1, count):
        left, top, width, height, area = (int(value) for value in boxes[number])
        part = labels[top : top + height, left : left + width] == number
        yield one_ring(simplified(part)) + np.array([left, top]), area, (left, top, width, height)


def simplified(part: np.ndarray) -> list[np.ndarray]:
    """Return the rings of a part ``[h, w]`` bool with as few points as its area allows, the outer one first.

    The stairs of a slanted edge are straight through the middles of its steps, so lines are sought there.
    """
    exact = rings(part)
    middles = [_middles(ring) for ring in exact]
    area = int(part.sum())
    for tolerance in _TOLERANCES:
        simple = [cv2.approxPolyDP(ring.astype(np.float32), tolerance, closed=True)[:, 0] for ring in middles]
        simple = [ring.astype(np.float64) for ring in simple if len(ring) > 2]
        if len(simple) < len(exact):
            continue
        filled = fill(simple, (part.shape[0], part.shape[1]))
        if abs(int(filled.sum()) - area) <= _AREA * area and int((filled != part).sum()) <= _MOVED * area:
            return simple
    return exact


def _middles(ring: np.ndarray) -> np.ndarray:
    """Return the middles ``[M, 2]`` of the pixels' edges that a ring of corners goes along."""
    steps = np.roll(ring, -1, axis=0) - ring
    lengths = np.abs(steps).sum(axis=1).astype(int)
    edge = np.repeat(np.arange(len(ring)), lengths)
    along = np.arange(len(edge)) - np.repeat(lengths.cumsum() - lengths, lengths) + 0.5
    return np.asarray(ring[edge] + steps[edge] / lengths[edge, np.newaxis] * along[:, np.newaxis])


def rings(part: np.ndarray) -> list[np.ndarray]:
    """Return the rings ``[N, 2]`` (x, y) along the pixels' edges of a connected part ``[h, w]`` bool, corners only.

    The outer ring is the first. Where two pixels touch at a corner, a ring goes from one to the other.
    """
    padded = np.pad(part, 1)
    inside = padded[1:-1, 1:-1]
    outside = [
        ~padded[:-2, 1:-1],
        ~padded[1:-1, 2:],
        ~padded[2:, 1:-1],
        ~padded[1:-1, :-2],
    ]  # above, right, below, left
    following: dict[tuple[int, int], list[int]] = {}
    for way, beyond in enumerate(outside):
        for row, column in np.argwhere(inside & beyond) + _CORNERS[way]:
            following.setdefault((int(row), int(column)), []).append(way)
    found = []
    for start in list(following):
        while start in following:
            found.append(_ring(following, start))
    return sorted(found, key=area_of, reverse=True)


def _ring(following: dict[tuple[int, int], list[int]], start: tuple[int, int]) -> np.ndarray:
    """Take one ring from a corner out of the edges that leave each corner, and return its corners (x, y)."""
    place = start
    corners, last = [], -1
    while True:
        ways = following.get(place)
        if not ways or (place == start and last >= 0 and not _goes_on(ways, last)):
            break
        # a left turn first, which goes over to the pixel that touches at the corner
        way = min(ways, key=lambda way: (way - last + 1) % 4) if last >= 0 else ways[0]
        ways.remove(way)
        if not ways:
            del following[place]
        if way != last:
            corners.append((place[1], place[0]))
        place, last = (place[0] + int(_WAYS[way, 0]), place[1] + int(_WAYS[way, 1])), way
    return np.array(corners, dtype=np.float64)


def _goes_on(ways: Sequence[int], last: int) -> bool:
    """Tell whether an edge leaves that the ring would take before it is closed: a left turn."""
    return (last + 3) % 4 in ways
