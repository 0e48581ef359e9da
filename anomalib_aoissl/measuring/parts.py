# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The parts of a mask, measured: connected parts of each class, wires that cross or touch told apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from anomalib_aoissl.data.indices import BACKGROUND_INDEX, IGNORE_INDEX

from .centre_line import CentreLine, centre_line
from .skeleton import Branch, branches
from .tracing_lines import lines

SMALLEST_AREA = 10
"""Parts of fewer px are specks, and are counted only."""

_ELONGATED = 3.0
"""A part is a line where its area is that of so many squares of its width."""


_SLENDER = 5.0
"""Lines that are told apart are so many widths long; else their part is measured as a whole."""


@dataclass(frozen=True)
class Part:
    """One part.

    Attributes:
        class_index: Its class.
        number: Counts the parts of the mask from 1.
        connected: Counts the connected parts from 1: wires that cross or touch have one number.
        area: Pixels.
        length: Along the centre line, or of the longer side of the smallest box around a part that is no line, px.
        width: Area divided by length where no other wire crosses, or the shorter side of that box, px.
        x: Of the centre of its pixels; 0 is the left edge of the picture, px.
        y: The same from the top, px.
        angle: Of the line from end to end, or of the longer side, degrees in [0, 180): 0 is level, 90 upright, 45 rises
            to the right.
        touching: Indices of the classes beside it.
        cut: Whether it reaches the edge of the picture, so that the whole part may be larger.
        line: ``[N, 2]`` (x, y) centre line in px; None for a part that is no line.
    """

    class_index: int
    number: int
    connected: int
    area: int
    length: float
    width: float
    x: float
    y: float
    angle: float
    touching: tuple[int, ...]
    cut: bool
    line: np.ndarray | None


@dataclass(frozen=True)
class Measured:
    """The parts of one mask.

    Attributes:
        parts: In the order of classes, and from top to bottom.
        labels: ``[H, W]`` int32, the number of the part at each pixel; 0 for none.
        specks: How many parts were too small.
    """

    parts: list[Part]
    labels: np.ndarray
    specks: int


def measure(mask: np.ndarray, classes: Sequence[int], smallest: int = SMALLEST_AREA) -> Measured:
    """Return the parts of some classes of a class-index mask.

    Args:
        mask: ``[H, W]`` uint8.
        classes: Indices of the classes to measure.
        smallest: Area in px of the smallest part.
    """
    found: list[Part] = []
    labels = np.zeros(mask.shape, dtype=np.int32)
    connected = specks = 0
    for index in classes:
        count, regions, boxes, centres = cv2.connectedComponentsWithStats(
            (mask == index).astype(np.uint8), connectivity=8
        )
        order = sorted(range(1, count), key=lambda number: (centres[number][1], centres[number][0]))
        kept = [number for number in order if boxes[number][4] >= smallest]
        specks += count - 1 - len(kept)
        crops = [(_box(boxes[number]), number) for number in kept]
        shapes = [_Region(regions[box] == number, box) for box, number in crops]
        width = _typical_width(shapes)
        for region in shapes:
            connected += 1
            for pixels, line in region.split(width):
                found.append(_part(mask, index, pixels, region.box, line, len(found) + 1, connected))
                labels[region.box][pixels] = len(found)
    return Measured(found, labels, specks)


def _box(stats: np.ndarray) -> tuple[slice, slice]:
    """Return rows and columns of a connected part."""
    left, top, width, height = (int(value) for value in stats[:4])
    return slice(top, top + height), slice(left, left + width)


class _Region:
    """A connected part and its skeleton."""

    def __init__(self, pixels: np.ndarray, box: tuple[slice, slice]) -> None:
        self.pixels, self.box = pixels, box
        radius = cv2.distanceTransform(np.pad(pixels, 1).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        self.is_line = pixels.sum() >= _ELONGATED * (2 * float(radius.max())) ** 2
        self.branches: list[Branch] = branches(pixels) if self.is_line else []

    def split(self, width: float) -> list[tuple[np.ndarray, CentreLine | None]]:
        """Return pixels ``[h, w]`` bool and centre line of each wire, or all pixels of a part that is no line."""
        if not self.branches:
            return [(self.pixels, None)]
        centres = [centre_line(line, self.pixels, width) for line in lines(self.branches, width)]
        longest = max(centres, key=lambda line: line.length)
        centres = [line for line in centres if line.length >= width] or [longest]
        if len(centres) > 1 and self._is_compact(centres):
            return [(self.pixels, None)]
        owners, _ = _nearest_point(centres, self.pixels)
        return [(self.pixels & (owners == number), line) for number, line in enumerate(centres)]

    def _is_compact(self, centres: Sequence[CentreLine]) -> bool:
        """Tell whether the part only looks like several lines, such as a pad that wires lie across."""
        width = 2 * float(np.median(np.concatenate([branch.radius for branch in self.branches])))
        return float(np.median([line.length for line in centres])) < _SLENDER * width


def _typical_width(regions: Sequence[_Region]) -> float:
    """Return the width of one wire of a class: the median over the skeleton pixels of all its lines, px."""
    radii = [branch.radius for region in regions for branch in region.branches]
    return max(1.0, 2 * float(np.median(np.concatenate(radii))) - 1) if radii else 1.0


def _nearest_point(centres: Sequence[CentreLine], part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of the nearest centre line, and of its nearest point, at each pixel ``[h, w]``."""
    from scipy.spatial import cKDTree

    tree = cKDTree(np.concatenate([line.points for line in centres]))
    owner = np.repeat(np.arange(len(centres)), [len(line.points) for line in centres])
    at = np.concatenate([np.arange(len(line.points)) for line in centres])
    rows, columns = np.nonzero(part)
    _, nearest = tree.query(np.stack([columns + 0.5, rows + 0.5], axis=1))
    owners, points = np.full(part.shape, -1), np.zeros(part.shape, dtype=np.int64)
    owners[rows, columns], points[rows, columns] = owner[nearest], at[nearest]
    return owners, points


def _part(
    mask: np.ndarray,
    index: int,
    pixels: np.ndarray,
    box: tuple[slice, slice],
    line: CentreLine | None,
    number: int,
    connected: int,
) -> Part:
    """Return the measures of the pixels ``[h, w]`` of a part in its box."""
    rows, columns = np.nonzero(pixels)
    top, left = box[0].start, box[1].start
    measures = None if line is None else _of_line(line, pixels)
    if measures is None:
        line, measures = None, _of_box(rows, columns)
    length, width, angle = measures
    edges = rows.min() + top == 0, columns.min() + left == 0
    far = rows.max() + top == mask.shape[0] - 1, columns.max() + left == mask.shape[1] - 1
    return Part(
        class_index=index,
        number=number,
        connected=connected,
        area=len(rows),
        length=length,
        width=width,
        x=float(columns.mean()) + left + 0.5,
        y=float(rows.mean()) + top + 0.5,
        angle=angle,
        touching=_touching(mask, index, pixels, box),
        cut=any((*edges, *far)),
        line=None if line is None else line.points + np.array([left, top]),
    )


def _of_line(line: CentreLine, pixels: np.ndarray) -> tuple[float, float, float] | None:
    """Return length, width and angle along a centre line; None for pixels that it does not measure.

    It is shorter than they are wide, or all of them lie at places that other wires share.
    """
    _, nearest = _nearest_point([line], pixels)
    own = ~line.shared if not line.shared.all() else np.ones(len(line.points), dtype=bool)
    area = int((pixels & own[nearest]).sum())
    width = area / max(float(line.steps[own].sum()), 1.0)
    if not 0 < width <= line.length:
        return None
    across, down = line.points[-1] - line.points[0]
    return line.length, width, float(np.rad2deg(np.arctan2(-down, across)) % 180)


def _of_box(rows: np.ndarray, columns: np.ndarray) -> tuple[float, float, float]:
    """Return length, width and angle of the smallest box around the pixels."""
    centres = np.stack([columns, rows], axis=1).astype(np.float32)
    corners = cv2.boxPoints(cv2.minAreaRect(centres))
    sides = corners[1] - corners[0], corners[2] - corners[1]
    longer, shorter = sorted(sides, key=lambda side: -float(np.linalg.norm(side)))
    angle = float(np.rad2deg(np.arctan2(-longer[1], longer[0])) % 180) if np.linalg.norm(longer) else 0.0
    return float(np.linalg.norm(longer)) + 1, float(np.linalg.norm(shorter)) + 1, angle


def _touching(mask: np.ndarray, index: int, pixels: np.ndarray, box: tuple[slice, slice]) -> tuple[int, ...]:
    """Return the classes of the pixels beside a part, corners too."""
    rows, columns = (slice(max(0, side.start - 1), side.stop + 1) for side in box)
    around = np.zeros(mask[rows, columns].shape, dtype=np.uint8)
    top, left = box[0].start - rows.start, box[1].start - columns.start
    around[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    beside = np.unique(mask[rows, columns][cv2.dilate(around, np.ones((3, 3), np.uint8)) > 0])
    return tuple(int(value) for value in beside if value not in {index, BACKGROUND_INDEX, IGNORE_INDEX})
