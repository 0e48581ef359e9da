# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Length and width of a wire along its centre line."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .tracing_lines import Line

_STEP = 0.25  # px, of the search for the end of a wire


@dataclass(frozen=True)
class CentreLine:
    """A smooth centre line, about one point a pixel.

    Attributes:
        points: ``[N, 2]`` (x, y) in px.
        shared: ``[N]`` bool, whether other wires lie there too.
    """

    points: np.ndarray
    shared: np.ndarray

    @property
    def steps(self) -> np.ndarray:
        """Length of the line that each point stands for, ``[N]`` px; they sum to the length."""
        halves = np.linalg.norm(np.diff(self.points, axis=0), axis=1) / 2
        return np.concatenate([halves, [0]]) + np.concatenate([[0], halves])

    @property
    def length(self) -> float:
        """Length in px."""
        return float(self.steps.sum())


def centre_line(line: Line, part: np.ndarray, width: float) -> CentreLine:
    """Return the smoothed line of a wire, carried on to the edge of the part at its free ends.

    Skeleton pixels go in steps of 45 degrees, which makes their line up to 8 % too long; a Gaussian of a wire's width
    takes the steps out.

    Args:
        line: The wire.
        part: ``[h, w]`` bool, the connected part.
        width: Width of one wire, px.
    """
    points, shared = _resampled(line, width)
    points = _smoothed(points, max(1.5, width))
    before, after = (
        _to_the_edge(points[::-1] if end == 0 else points, part, width) if line.free[end] else points[:0]
        for end in (0, 1)
    )
    whole = np.concatenate([before[::-1], points, after])
    return CentreLine(whole, np.concatenate([np.zeros(len(before), bool), shared, np.zeros(len(after), bool)]))


def _resampled(line: Line, width: float) -> tuple[np.ndarray, np.ndarray]:
    """Return a point each pixel along a line, and which of them lie at a shared place or within a width of it."""
    steps = np.linalg.norm(np.diff(line.points, axis=0), axis=1)
    along = np.concatenate([[0], steps.cumsum()])
    count = max(2, round(float(along[-1])) + 1)
    at = np.linspace(0, along[-1], count)
    points = np.stack([np.interp(at, along, line.points[:, axis]) for axis in (0, 1)], axis=1)
    shared = np.zeros(count, dtype=bool)
    for number in np.flatnonzero(line.shared):
        shared |= (at >= along[number] - width) & (at <= along[number + 1] + width)
    return points, shared


def _smoothed(points: np.ndarray, sigma: float) -> np.ndarray:
    """Return the points after a Gaussian of ``sigma`` points, the ends kept by mirroring about them."""
    from scipy.ndimage import gaussian_filter1d

    reach = min(len(points) - 1, int(4 * sigma))
    if reach < 1:
        return points
    mirrored = np.pad(points, ((reach, reach), (0, 0)), "reflect", reflect_type="odd")
    return np.asarray(gaussian_filter1d(mirrored, sigma, axis=0, mode="nearest")[reach:-reach])


def _to_the_edge(points: np.ndarray, part: np.ndarray, width: float) -> np.ndarray:
    """Return the points that carry a line on from its last point to the edge of the part, about one a pixel."""
    back = min(len(points) - 1, max(2, round(2 * width)))
    way = points[-1] - points[-1 - back]
    length = float(np.linalg.norm(way))
    if not length:
        return points[:0]
    reach = np.arange(_STEP, 2 * width + 1, _STEP)
    places = points[-1] + reach[:, np.newaxis] * way / length
    columns, rows = np.floor(places).astype(int).T
    inside = (rows >= 0) & (columns >= 0) & (rows < part.shape[0]) & (columns < part.shape[1])
    inside[inside] = part[rows[inside], columns[inside]]
    count = len(reach) if inside.all() else int(inside.argmin())
    if not count:
        return points[:0]
    every = round(1 / _STEP)
    kept = [*range(every - 1, count - 1, every), count - 1]
    return places[kept]
