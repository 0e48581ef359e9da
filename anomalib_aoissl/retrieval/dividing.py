# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Points to groups: the groups with the largest error are cut in two until there are as many as the budget allows."""

from __future__ import annotations

import torch

_REFINEMENTS = 2
"""Steps of two-means for each cut."""

_CUT_SHARE = 0.5
"""Groups with at least this share of the largest error are cut in the same round."""


def divide(points: torch.Tensor, weights: torch.Tensor, groups: torch.Tensor, budget: int) -> torch.Tensor:
    """Return groups ``[N]``, numbered without gaps, each within one of the given groups; at most ``budget``.

    Many groups are cut in each round: those whose error, the sum of the weighted squared distances to their centre, is
    at least half of the largest. Costs some log(budget) passes over the points; a greedy rule costs ``budget`` passes.

    Args:
        points: ``[N, E]``.
        weights: ``[N]``, positive.
        groups: ``[N]`` from 0 without gaps; no more than ``budget``.
        budget: Groups to end with; fewer where all points of each group are the same.
    """
    groups, number = groups.clone(), int(groups.max()) + 1
    spread = torch.empty(len(points))  # [N], squared distance to the centre of the group
    error = torch.zeros(budget)
    size = torch.zeros(budget)
    _measure(points, weights, groups, torch.arange(len(points)), number, spread, error, size)
    smallest = 1e-12 * float(error.sum())
    while number < budget:
        able = (size > 1) & (error > smallest) & (error >= _CUT_SHARE * error.max())
        wanted = min(budget - number, max(1, number // 2), int(able.sum()))
        if not wanted:
            break
        chosen = torch.where(able, error, -1.0).topk(wanted).indices  # [wanted]
        local = torch.full((budget,), -1)
        local[chosen] = torch.arange(wanted)
        rows = (local[groups] >= 0).nonzero().squeeze(1)
        part = local[groups[rows]]
        side = _halves(points[rows], weights[rows], spread[rows], part, wanted)
        groups[rows] = torch.where(side, number + part, groups[rows])
        number += wanted
        error[chosen], size[chosen] = 0.0, 0.0
        _measure(points, weights, groups, rows, number, spread, error, size)
    return groups


def centres(points: torch.Tensor, weights: torch.Tensor, groups: torch.Tensor, number: int) -> torch.Tensor:
    """Return the weighted mean ``[number, E]`` of each group's points; zero for an empty group."""
    sums = torch.zeros(number, points.shape[1]).index_add_(0, groups, points * weights[:, None])
    total = torch.zeros(number).index_add_(0, groups, weights)
    return sums / total.clamp(min=1e-30)[:, None]


def first_of_largest(values: torch.Tensor, groups: torch.Tensor, number: int) -> torch.Tensor:
    """Return for each group the row ``[number]`` of its largest value, the first one where several are equal.

    Args:
        values: ``[N]``.
        groups: ``[N]``; each of 0..number - 1 occurs.
        number: Groups.
    """
    largest = torch.full((number,), -torch.inf).scatter_reduce_(0, groups, values, "amax")
    candidates = (values == largest[groups]).nonzero().squeeze(1)
    first = torch.full((number,), len(values))
    return first.scatter_reduce_(0, groups[candidates], candidates, "amin")


def _halves(
    points: torch.Tensor, weights: torch.Tensor, spread: torch.Tensor, part: torch.Tensor, number: int
) -> torch.Tensor:
    """Return for each point which half of its group it belongs to, ``[N]`` booleans; no half is empty.

    Two-means, from the point that is farthest from the centre and the point that is farthest from that one.
    """
    first = first_of_largest(spread, part, number)  # [number]
    distance = (points - points[first][part]).square().sum(dim=1)
    distance[first] = -1.0
    second = first_of_largest(distance, part, number)
    one, other = points[first], points[second]  # [number, E]
    side = torch.zeros(len(points), dtype=torch.bool)
    for _ in range(_REFINEMENTS):
        to_one = (points - one[part]).square().sum(dim=1)
        side = (points - other[part]).square().sum(dim=1) < to_one
        side[first], side[second] = False, True
        means = centres(points, weights, 2 * part + side, 2 * number)
        one, other = means[0::2], means[1::2]
    return side


def _measure(
    points: torch.Tensor,
    weights: torch.Tensor,
    groups: torch.Tensor,
    rows: torch.Tensor,
    number: int,
    spread: torch.Tensor,
    error: torch.Tensor,
    size: torch.Tensor,
) -> None:
    """Put the rows' squared distances, and their groups' errors and sizes, into ``spread``, ``error`` and ``size``."""
    part, own = groups[rows], points[rows]
    distances = (own - centres(own, weights[rows], part, number)[part]).square().sum(dim=1)
    spread[rows] = distances
    error.index_add_(0, part, distances * weights[rows])
    size.index_add_(0, part, torch.ones(len(rows)))
