# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The skeleton of a connected part as a graph: branches between places where they meet."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

_AROUND = [(row, column) for row in (-1, 0, 1) for column in (-1, 0, 1) if row or column]


@dataclass
class Branch:
    """A line of skeleton pixels.

    Attributes:
        points: ``[N, 2]`` (x, y) in px, the pixels' centres in order.
        radius: ``[N]`` distance to the edge of the part, px.
        nodes: Number of the junction at the first and at the last point; -1 for a free end.
    """

    points: np.ndarray
    radius: np.ndarray
    nodes: tuple[int, int]

    @property
    def length(self) -> float:
        """Length in px."""
        return float(np.linalg.norm(np.diff(self.points, axis=0), axis=1).sum())

    @property
    def width(self) -> float:
        """Median width in px."""
        return 2 * float(np.median(self.radius))


def branches(part: np.ndarray) -> list[Branch]:
    """Return the branches of the skeleton of a connected part ``[h, w]`` bool, without spurs of its edge."""
    from scipy import ndimage
    from skimage.morphology import skeletonize

    padded = np.pad(part, 1)
    thin = skeletonize(padded)
    radius = ndimage.distance_transform_edt(padded)
    neighbours = ndimage.convolve(thin.astype(np.uint8), np.ones((3, 3), np.uint8), mode="constant") - 1
    meeting = thin & (neighbours > 2)
    junctions, _ = ndimage.label(meeting, np.ones((3, 3)))
    lines, count = ndimage.label(thin & ~meeting, np.ones((3, 3)))
    found = []
    for number, box in enumerate(ndimage.find_objects(lines, count), start=1):
        rows, columns = np.nonzero(lines[box] == number)
        pixels = _in_order({(int(r) + box[0].start, int(c) + box[1].start) for r, c in zip(rows, columns, strict=True)})
        place = np.array(pixels)
        nodes = _nodes(pixels, junctions)
        found.append(Branch(place[:, ::-1] - 0.5, radius[place[:, 0], place[:, 1]], nodes))  # 1 px of padding
    return _without_spurs(found)


def _in_order(pixels: set[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the pixels of a path from one end to the other; a circle begins anywhere."""

    def next_to(pixel: tuple[int, int]) -> list[tuple[int, int]]:
        near = [(pixel[0] + row, pixel[1] + column) for row, column in _AROUND]
        return sorted((p for p in near if p in left), key=lambda p: abs(p[0] - pixel[0]) + abs(p[1] - pixel[1]))

    left = set(pixels)
    ends = [pixel for pixel in sorted(pixels) if len(next_to(pixel)) < 2]
    here: tuple[int, int] | None = ends[0] if ends else min(pixels)
    path = []
    while here is not None:
        path.append(here)
        left.discard(here)
        here = next(iter(next_to(here)), None)
    return path


def _nodes(pixels: list[tuple[int, int]], junctions: np.ndarray) -> tuple[int, int]:
    """Return the junctions beside the first and the last pixel of a path; -1 where there is none."""

    def beside(pixel: tuple[int, int]) -> list[int]:
        near = [int(junctions[pixel[0] + row, pixel[1] + column]) for row, column in _AROUND]
        return sorted({number for number in near if number})

    first, last = beside(pixels[0]), beside(pixels[-1])
    if len(pixels) == 1:
        return (first[0] if first else -1, first[-1] if len(first) > 1 else -1)
    return (first[0] if first else -1, last[-1] if last else -1)


def _without_spurs(found: list[Branch]) -> list[Branch]:
    """Return the branches without those that only lead from the centre line to the edge of the part."""
    kept = [branch for branch in found if not _is_spur(branch)]
    kept = kept or sorted(found, key=lambda branch: -branch.length)[:1]
    degree = Counter(node for branch in kept for node in branch.nodes)
    for branch in kept:  # where all spurs of a tip went, it is a free end
        first, last = (node if degree[node] > 1 else -1 for node in branch.nodes)
        branch.nodes = (first, last)
    return kept


def _is_spur(branch: Branch) -> bool:
    """Tell whether a branch with one free end is no longer than the part is wide at its junction."""
    if (branch.nodes[0] == -1) == (branch.nodes[1] == -1):
        return False
    at_junction = branch.radius[-1] if branch.nodes[0] == -1 else branch.radius[0]
    return branch.length + branch.radius.min() <= 1.5 * max(float(at_junction), float(branch.radius.max())) + 1
