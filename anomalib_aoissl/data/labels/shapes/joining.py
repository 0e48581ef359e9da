# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""An outer ring and its holes as one ring: each hole is reached by a short cut, there and back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

_Corner = tuple[int, int]  # number of a ring, and of its point
_Joints = Sequence[tuple[int, int, int]]  # of a ring: its point, the ring that begins there, and the start of that


def one_ring(found: Sequence[np.ndarray]) -> np.ndarray:
    """Return one ring of an outer one and its holes, ``[N, 2]`` (x, y) each, in time that grows as their points do.

    From left to right, the leftmost point of a hole is joined to the nearest point of what is joined already.
    """
    every = [found[0], *sorted(found[1:], key=lambda hole: float(hole[:, 0].min()))]
    near = _Nearby(every)
    joined: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    for number, ring in enumerate(every):
        if number:
            leftmost = int(ring[:, 0].argmin())
            other, at = near.find(ring[leftmost])
            joined[other].append((at, number, leftmost))
        near.add(number, ring)
    return np.concatenate(list(_walked(every, joined)))


def _walked(every: Sequence[np.ndarray], joined: Mapping[int, _Joints]) -> Iterator[np.ndarray]:
    """Yield the pieces of a walk along the first ring, and around each hole from where it is joined."""
    todo = [_pieces(every[0], joined.get(0, ()))]
    while todo:
        step = next(todo[-1], None)
        if step is None:
            todo.pop()
        elif isinstance(step, tuple):
            number, start = step
            todo.append(_pieces(every[number], joined.get(number, ()), start))
        else:
            yield step


def _pieces(ring: np.ndarray, joined: _Joints, start: int | None = None) -> Iterator[np.ndarray | _Corner]:
    """Yield the parts of a ring, closed where it has a start, and between them what is joined: a ring and its start."""
    count, first = len(ring), 0
    if start is not None:
        ring = np.concatenate([ring[start:], ring[: start + 1]])
    steps = [((at - (start or 0)) % count, number, place) for at, number, place in joined]
    for at, number, place in sorted(steps):
        yield ring[first : at + 1]
        yield number, place
        first = at
    yield ring[first:]


class _Nearby:
    """Points of rings in square cells, so that the nearest one is found among few.

    Args:
        every: All rings that may be added; they decide how large a cell is.
    """

    def __init__(self, every: Sequence[np.ndarray]) -> None:
        points = np.concatenate(every)
        self._low = points.min(axis=0)
        extent = points.max(axis=0) - self._low
        self._side = max(1.0, float(np.sqrt(extent.prod() / len(points))))
        self._largest = int(extent.max() / self._side) + 1
        self._cells: dict[tuple[int, int], list[tuple[float, float, _Corner]]] = defaultdict(list)

    def add(self, number: int, ring: np.ndarray) -> None:
        """Put the points of a ring into their cells."""
        cells = ((ring - self._low) / self._side).astype(int).tolist()
        for place, ((x, y), (column, row)) in enumerate(zip(ring.tolist(), cells, strict=True)):
            self._cells[column, row].append((x, y, (number, place)))

    def find(self, point: np.ndarray) -> _Corner:
        """Return the nearest of the points that were added."""
        x, y = point.tolist()
        column, row = ((point - self._low) / self._side).astype(int).tolist()
        best, found = float("inf"), (0, 0)
        for around in range(self._largest + 1):
            if best <= ((around - 1) * self._side) ** 2:
                break
            for cell in _square(column, row, around):
                for other_x, other_y, corner in self._cells.get(cell, ()):
                    distance = (other_x - x) ** 2 + (other_y - y) ** 2
                    if distance < best:
                        best, found = distance, corner
        return found


def _square(column: int, row: int, around: int) -> Iterator[tuple[int, int]]:
    """Yield the cells of a square's border, so many cells away from its middle."""
    across = range(-around, around + 1)
    for right in across:
        yield column + right, row - around
        if around:
            yield column + right, row + around
    for down in across[1:-1]:
        yield column - around, row + down
        yield column + around, row + down
