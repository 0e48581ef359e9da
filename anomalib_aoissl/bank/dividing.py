# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Points to groups: the groups with the largest error are cut in two until there are as many as the budget allows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_REFINEMENTS = 2
"""Steps of two-means for each cut."""

_CUT_SHARE = 0.5
"""Groups with at least this share of the largest error are cut in the same round."""


def divide(points: np.ndarray, weights: np.ndarray, groups: np.ndarray, budget: int) -> np.ndarray:
    """Return groups ``[N]``, numbered without gaps, each within one of the given groups; at most ``budget``.

    Many groups are cut in each round: those whose error, the sum of the weighted squared distances to their centre, is
    at least half of the largest. Costs some log(budget) passes over the points; a greedy rule costs ``budget`` passes.

    Args:
        points: ``[N, E]`` float32.
        weights: ``[N]`` float32, positive.
        groups: ``[N]`` from 0 without gaps; no more than ``budget``.
        budget: Groups to end with; fewer where all points of each group are the same.
    """
    groups, number = groups.copy(), int(groups.max()) + 1
    error, size = np.zeros(budget, np.float32), np.zeros(budget, np.int64)
    whole = _Sorted(points, weights, groups)
    error[:number], size[:number] = whole.errors(whole.distances(whole.centres())), whole.sizes
    smallest = 1e-12 * float(error.sum())
    while number < budget:
        able = np.flatnonzero((size > 1) & (error > smallest) & (error >= _CUT_SHARE * error.max()))
        wanted = min(budget - number, max(1, number // 2), len(able))
        if not wanted:
            break
        chosen = able[np.argsort(-error[able], kind="stable")[:wanted]]
        local = np.full(budget, -1)
        local[chosen] = np.arange(wanted)
        entries = np.flatnonzero(local[groups] >= 0)
        part = _Sorted(points[entries], weights[entries], local[groups[entries]])
        halves = 2 * part.groups + part.halves()  # part i becomes the halves 2 i and 2 i + 1
        new = np.stack([chosen, number + np.arange(wanted)], axis=1).reshape(-1)  # [2 * wanted]
        groups[entries[part.order]] = new[halves]
        parts = _Sorted(part.points, part.weights, halves)
        error[new], size[new] = parts.errors(parts.distances(parts.centres())), parts.sizes
        number += wanted
    return groups


def nearest_to_centres(points: np.ndarray, weights: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return for each group the entry that is nearest to the weighted mean of its points, the first of equal ones."""
    parts = _Sorted(points, weights, groups)
    return parts.order[parts.first_of_largest(-parts.distances(parts.centres()))]


@dataclass
class _Sorted:
    """Points in the order of their groups, so that what a group adds up to is a sum over neighbours.

    Attributes:
        points: ``[N, E]``.
        weights: ``[N]``.
        groups: ``[N]``, from 0 without gaps.
    """

    points: np.ndarray
    weights: np.ndarray
    groups: np.ndarray

    def __post_init__(self) -> None:
        """Sort."""
        self.order = np.argsort(self.groups, kind="stable")
        self.points, self.weights = self.points[self.order], self.weights[self.order]
        self.groups = self.groups[self.order]
        self.starts = np.flatnonzero(np.diff(self.groups, prepend=-1))
        self.sizes = np.diff(self.starts, append=len(self.groups))
        self.totals = np.add.reduceat(self.weights, self.starts)

    def sums(self, weights: np.ndarray) -> np.ndarray:
        """Return the weighted sum ``[G, E]`` of each group's points."""
        return np.add.reduceat(self.points * weights[:, np.newaxis], self.starts)

    def centres(self) -> np.ndarray:
        """Return the weighted mean ``[G, E]`` of each group's points."""
        return self.sums(self.weights) / np.maximum(self.totals, 1e-30)[:, np.newaxis]

    def distances(self, places: np.ndarray) -> np.ndarray:
        """Return the squared distance ``[N]`` of each point to the place ``[G, E]`` of its group."""
        offsets = self.points - np.repeat(places, self.sizes, axis=0)
        return np.einsum("ne,ne->n", offsets, offsets)

    def errors(self, distances: np.ndarray) -> np.ndarray:
        """Return the sum of the weighted distances of each group ``[G]``."""
        return np.add.reduceat(distances * self.weights, self.starts)

    def first_of_largest(self, values: np.ndarray) -> np.ndarray:
        """Return for each group the place ``[G]`` of its largest value, the first one where several are equal."""
        largest = np.flatnonzero(values == np.repeat(np.maximum.reduceat(values, self.starts), self.sizes))
        return largest[np.flatnonzero(np.diff(self.groups[largest], prepend=-1))]

    def halves(self) -> np.ndarray:
        """Return for each point which half of its group it belongs to, ``[N]`` 0 or 1; no half is empty.

        Two-means, from the point that is farthest from the centre and the point that is farthest from that one.
        """
        first = self.first_of_largest(self.distances(self.centres()))
        distances = self.distances(self.points[first])
        distances[first] = -1.0
        second = self.first_of_largest(distances)
        one, other = self.points[first], self.points[second]  # [G, E]
        whole = self.sums(self.weights)
        for last in range(_REFINEMENTS, 0, -1):
            side = self.distances(other) < self.distances(one)
            side[first], side[second] = False, True
            if last > 1:
                weights = self.weights * side
                total, sums = np.add.reduceat(weights, self.starts), self.sums(weights)
                one = (whole - sums) / np.maximum(self.totals - total, 1e-30)[:, np.newaxis]
                other = sums / np.maximum(total, 1e-30)[:, np.newaxis]
        return side.astype(np.int64)
