# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Which rows of a memory bank to keep within a budget: rules by name, pure functions, the same for the same seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch

from anomalib_aoissl.data.indices import IGNORE_INDEX

from .dividing import centres, divide, first_of_largest

_DIMS = 48
"""Dimensions that embeddings are projected to before distances are compared; they keep distances within some 15 %."""

_LABEL_SHARE = 2.0
"""Weight of the labels' differences against the embeddings', as a factor on distances of equal spread: a patch that
looks like another and is labelled otherwise, the same edge a pixel further, is what a bank cannot do without."""


@dataclass(frozen=True)
class Rows:
    """Rows of a bank, N of them, in an order that does not depend on how they came in.

    Attributes:
        embeddings: ``[N, D]`` of unit length.
        labels: ``[N, L]`` uint8, L = patch height * patch width.
        devices: ``[N]`` integers.
        counts: ``[N]``, patches that each row stands for.
        patch_size: (height, width), px.
    """

    embeddings: torch.Tensor
    labels: torch.Tensor
    devices: torch.Tensor
    counts: torch.Tensor
    patch_size: tuple[int, int]

    @cached_property
    def shares(self) -> torch.Tensor:
        """Share of each patch's pixels that each class that occurs has, ``[N, classes]``; ignored is no class."""
        present = self.labels.unique()
        return torch.stack([(self.labels == c).float().mean(dim=1) for c in present[present != IGNORE_INDEX]], dim=1)


def condense(rows: Rows, budget: int, rule: str, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the indices ``[K]`` of the rows to keep, rising, and the patches ``[K]`` int32 that each stands for.

    K is the budget, or less where rows are the same. No class and no device vanishes.

    Args:
        rows: All rows.
        budget: Rows to keep at most; where there are no more than that, all are kept.
        rule: One of `RULES`.
        generator: Of everything random.

    Raises:
        ValueError: If the budget cannot hold a row of each class and each device.
    """
    if len(rows.labels) <= budget:
        return torch.arange(len(rows.labels)), rows.counts.to(torch.int32)
    cover = covering_rows(rows)
    if len(cover) > budget:
        msg = (
            f"A bank of {budget} rows cannot hold a patch of each class and each device of its images: "
            f"{len(cover)} rows at least. Raise bank_size."
        )
        raise ValueError(msg)
    return RULES[rule](rows, budget, cover, generator)


def covering_rows(rows: Rows) -> torch.Tensor:
    """Return the indices of few rows that show each class and each device, the purest patch of each class."""
    shares = rows.shares
    chosen: list[int] = []
    for index in shares.sum(dim=0).argsort().tolist():
        if not (shares[chosen, index] > 0).any():
            chosen.append(int(shares[:, index].argmax()))
    for device in rows.devices.unique().tolist():
        if not (rows.devices[chosen] == device).any():
            chosen.append(int((rows.devices == device).nonzero()[0]))
    return torch.tensor(sorted(chosen), dtype=torch.long)


def balanced(
    rows: Rows, budget: int, cover: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return one patch of each of ``budget`` groups of patches that look alike and are labelled alike.

    The patches are grouped by device and by the set of classes that they show. The group with the largest error is
    then cut in two again and again: the squared distances to its centre, of the embeddings and of the labels, each
    patch weighted by one over the square root of how frequent its classes are. So a thousand patches of the same
    background are one row, and boundaries and rare classes, which decide, are many.
    """
    if len(cover) == budget:
        return k_center(rows, budget, cover, generator)
    groups = _strata(rows)
    if int(groups.max()) + 1 > budget:
        groups = torch.zeros_like(groups)
        groups[cover] = torch.arange(1, len(cover) + 1)
    points, weights = joint_points(rows, generator), balancing_weights(rows)
    groups = divide(points, weights, groups.unique(return_inverse=True)[1], budget)
    number = int(groups.max()) + 1
    distances = (points - centres(points, weights, groups, number)[groups]).square().sum(dim=1)
    return _in_order(first_of_largest(-distances, groups, number), _counts_of(groups, rows.counts, number))


def k_center(
    rows: Rows, budget: int, cover: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the rows of the greedy k-center rule [0]: always the row that is farthest from all that are kept.

    Takes a pass over all rows for each that is kept. [0]: Gonzalez, 1985, 10.1016/0304-3975(85)90224-5.
    """
    points = _projected(rows.embeddings, generator)
    kept = cover.tolist()
    norms = points.square().sum(dim=1)
    distance, nearest = torch.full((len(points),), torch.inf), torch.zeros(len(points), dtype=torch.long)
    for position in range(budget):
        if position == len(kept):
            kept.append(int(distance.argmax()))
        centre = kept[position]
        new = (norms + norms[centre] - 2 * (points @ points[centre])).clamp(min=0.0)  # squared distances
        nearest = torch.where(new < distance, position, nearest)
        distance = torch.minimum(distance, new)
    return _in_order(torch.tensor(kept), _counts_of(nearest, rows.counts, budget))


def random_rows(
    rows: Rows, budget: int, cover: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return rows drawn with equal chances; each stands for itself alone."""
    chances = torch.rand(len(rows.labels), generator=generator)
    chances[cover] = 2.0
    kept = chances.topk(budget).indices
    return _in_order(kept, torch.ones(budget, dtype=torch.int32))


RULES: dict[str, Callable[[Rows, int, torch.Tensor, torch.Generator], tuple[torch.Tensor, torch.Tensor]]] = {
    "learned": balanced,  # and then `learning.learned` moves the rows
    "balanced": balanced,
    "kcenter": k_center,
    "random": random_rows,
}
"""The rules by name; each takes the rows, the budget, rows that must stay, and a generator."""


def balancing_weights(rows: Rows) -> torch.Tensor:
    """Return the weight of each row ``[N]``: rare classes count more, by the square root of how rare they are."""
    shares, counts = rows.shares, rows.counts.float()
    frequency = (shares * counts[:, None]).sum(dim=0) / counts.sum()  # [classes]
    return counts * (shares / frequency.clamp(min=1e-9).sqrt()).sum(dim=1)


def joint_points(rows: Rows, generator: torch.Generator) -> torch.Tensor:
    """Return points ``[N, E]`` whose squared distances are those of the embeddings plus those of the labels."""
    looks, labels = _projected(rows.embeddings, generator), _label_cells(rows.labels, rows.patch_size)
    return torch.cat([_unit_spread(looks), _LABEL_SHARE * _unit_spread(labels)], dim=1)


def _projected(embeddings: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return the embeddings ``[N, D]`` in few dimensions, by a random projection where D is larger."""
    if embeddings.shape[1] <= _DIMS:
        return embeddings.float()
    return embeddings.float() @ (torch.randn(embeddings.shape[1], _DIMS, generator=generator) / _DIMS**0.5)


def _label_cells(labels: torch.Tensor, patch_size: tuple[int, int]) -> torch.Tensor:
    """Return the share of each class in each quarter of a patch, ``[N, classes * 4]``; in the whole patch if odd."""
    rows, columns = (2 if size % 2 == 0 else 1 for size in patch_size)
    cells = labels.reshape(-1, rows, patch_size[0] // rows, columns, patch_size[1] // columns)
    present = labels.unique()
    return torch.cat(
        [(cells == c).float().mean(dim=(2, 4)).flatten(1) for c in present[present != IGNORE_INDEX]], dim=1
    )


def _unit_spread(points: torch.Tensor) -> torch.Tensor:
    """Return the points around their centre, with a mean squared distance to it of 1."""
    centred = points - points.mean(dim=0)
    return centred / centred.square().sum(dim=1).mean().sqrt().clamp(min=1e-12)


def _strata(rows: Rows) -> torch.Tensor:
    """Return the group ``[N]`` of each row by its device and the set of classes that it shows."""
    shown = (rows.shares > 0).to(torch.int64)
    keys = torch.cat([rows.devices.to(torch.int64)[:, None], shown], dim=1)
    return keys.unique(dim=0, return_inverse=True)[1]


def _counts_of(groups: torch.Tensor, counts: torch.Tensor, number: int) -> torch.Tensor:
    """Return the patches of each group."""
    return torch.zeros(number, dtype=torch.int32).index_add_(0, groups, counts.to(torch.int32))


def _in_order(kept: torch.Tensor, counts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the kept rows in rising order, and their counts."""
    order = kept.argsort()
    return kept[order], counts[order]
