# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Which entries of a memory bank to keep within a budget: pure functions, the same for the same seed.

In numpy alone, so that an exported model on the line condenses as training does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from anomalib_aoissl.data.indices import IGNORE_INDEX

from .content import BankArrays, float_embeddings, with_used_names
from .dividing import divide, nearest_to_centres

_DIMS = 48
"""Dimensions that embeddings are projected to before distances are compared; they keep distances within some 15 %."""

_LABEL_SHARE = 2.0
"""Weight of the labels' differences against the embeddings', as a factor on distances of equal spread: a patch that
looks like another and is labelled otherwise, the same edge a pixel further, is what a bank cannot do without."""

_AT_ONCE = 256
"""Entries to which distances are computed at once."""

_FEW = 2048
"""Points whose distances are computed anew at once."""

_SAME = 1e-4
"""Squared distance, where 1 is usual, up to which patches look the same."""

_RARE_SHARE, _MOST_RARE = 0.1, 1000
"""Share of the entries, and how many at most, that are kept since no other looks like them: else what is rare but usual
counts as novel."""


@dataclass(frozen=True)
class Entries:
    """Entries of a bank, N of them, in an order that does not depend on how they came in.

    Attributes:
        embeddings: ``[N, D]`` float32 of unit length.
        labels: ``[N, L]`` uint8, L = patch height * patch width.
        devices: ``[N]`` integers.
        counts: ``[N]``, patches that each entry stands for.
        patch_size: (height, width), px; None where it is not known.
    """

    embeddings: np.ndarray
    labels: np.ndarray
    devices: np.ndarray
    counts: np.ndarray
    patch_size: tuple[int, int] | None

    @classmethod
    def of(cls, bank: BankArrays) -> Entries:
        """Return the entries of a bank."""
        labels, devices, counts = (bank.entries[name] for name in ("labels", "device_ids", "counts"))
        return cls(float_embeddings(bank.entries), labels, devices, counts, bank.patch_size)

    @cached_property
    def classes(self) -> list[int]:
        """Indices of the classes that occur, rising; ignored is no class."""
        return classes_in(self.labels)

    @cached_property
    def shares(self) -> np.ndarray:
        """Share of each patch's pixels that each class that occurs has, ``[N, classes]``."""
        return np.stack([(self.labels == c).mean(axis=1, dtype=np.float32) for c in self.classes], axis=1)


def classes_in(labels: np.ndarray) -> list[int]:
    """Return the indices of the classes that occur among labels ``[N, L]``, rising; ignored is no class."""
    return [index for index in np.flatnonzero(np.bincount(labels.reshape(-1))).tolist() if index != IGNORE_INDEX]


def condensed(bank: BankArrays, size: int, patch_size: tuple[int, int] | None) -> BankArrays:
    """Return the bank with at most ``size`` entries, by `condense`; the same for the same bank, always.

    Args:
        bank: The bank; one that is small enough is returned as it is.
        size: Entries to keep.
        patch_size: (height, width) of a patch, px; None where it is not known, and only how much of a patch each class
            has counts, not where.

    Raises:
        ValueError: If ``size`` cannot hold an entry of each class and each device.
    """
    if len(bank) <= size:
        return bank
    kept, counts = condense(Entries.of(replace(bank, patch_size=patch_size)), size, np.random.default_rng(0))
    entries = {name: array[kept] for name, array in bank.entries.items()}
    return with_used_names(replace(bank, entries={**entries, "counts": counts}))


def condense(entries: Entries, budget: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices ``[K]`` of the entries to keep, rising, and the patches ``[K]`` int32 that each stands for.

    K is the budget, or less where entries are the same. No class and no device vanishes. One patch is kept of each
    group of patches that look alike and are labelled alike. Patches are grouped by device and by the classes that they
    show. The group with the largest error is then cut in two again and again: the squared distances to its centre,
    of the embeddings and of the labels, each patch weighted by one over the square root of how frequent its classes
    are. So a thousand patches of the same background are one entry, and boundaries and rare classes, which decide, are
    many. A tenth of the budget, 1,000 at most, is for the patches that look least like all others, see `farthest`.

    Args:
        entries: All entries.
        budget: Entries to keep at most; where there are no more than that, all are kept.
        generator: Of the random projection that distances are compared in.

    Raises:
        ValueError: If the budget cannot hold an entry of each class and each device.
    """
    if len(entries.labels) <= budget:
        return np.arange(len(entries.labels)), entries.counts.astype(np.int32)
    cover = covering_entries(entries)
    if len(cover) > budget:
        msg = (
            f"A bank of {budget} entries cannot hold a patch of each class and each device of its images: "
            f"{len(cover)} entries at least. Allow a larger bank."
        )
        raise ValueError(msg)
    points, weights, groups = joint_points(entries, generator), balancing_weights(entries), _strata(entries)
    if len(cover) == budget:
        nearest = np.square(points[:, None] - points[cover]).sum(axis=2).argmin(axis=1)
        return _in_order(cover, _counts_of(nearest, entries.counts, budget))
    common = max(budget - min(int(_RARE_SHARE * budget), _MOST_RARE), len(cover) + 1)
    if int(groups.max()) + 1 > common:
        groups = np.zeros_like(groups)
        groups[cover] = np.arange(1, len(cover) + 1)
    groups = divide(points, weights, _numbered(groups), common)
    kept, counts = nearest_to_centres(points, weights, groups), _counts_of(groups, entries.counts)
    looks = points[:, : min(_DIMS, entries.embeddings.shape[1])]  # without the labels, which come after them
    rare = farthest(looks, kept, np.square(looks - looks[kept[groups]]).sum(axis=1), budget - common)
    alone = entries.counts[rare].astype(np.int32)
    np.subtract.at(counts, groups[rare], alone)
    return _in_order(np.concatenate([kept, rare]), np.concatenate([counts, alone]))


def farthest(points: np.ndarray, kept: np.ndarray, bounds: np.ndarray, number: int) -> np.ndarray:
    """Return the indices of the points that are farthest from those that are kept, one after the other.

    Each is kept before the next one is looked for: Gonzalez, Clustering to Minimize the Maximum Intercluster Distance,
    1985, 10.1016/0304-3975(85)90224-5. Distances only fall, so that what was known before is an upper bound: of a few
    points they are computed anew, and the farthest of these is the farthest of all while no bound of the others is
    larger.

    Args:
        points: ``[N, E]``.
        kept: Indices of the points that are kept already.
        bounds: ``[N]``, squared distances to one of these each.
        number: Points to return; fewer where all others are the same as one that is kept.
    """
    nearest, known, wanted = bounds.copy(), kept, len(kept) + number
    nearest[kept] = 0
    while len(known) < wanted and nearest.max() > _SAME:
        few = np.sort(np.argsort(-nearest, kind="stable")[:_FEW])
        others = np.delete(nearest, few).max(initial=_SAME)
        some = points[few]
        distances = np.minimum(nearest[few], _squared_distances(some, points[known]))
        found: list[int] = []
        while len(known) + len(found) < wanted and distances.max() >= others:
            found.append(int(distances.argmax()))
            distances = np.minimum(distances, np.square(some - some[found[-1]]).sum(axis=1))
        nearest[few] = distances
        known = np.concatenate([known, few[found]])
    return known[len(kept) :]


def _squared_distances(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the squared distance ``[N]`` of each point to the nearest of others."""
    nearest = np.full(len(points), np.inf, np.float32)
    for part in np.array_split(others, -(-len(others) // _AT_ONCE)):
        nearest = np.minimum(nearest, (np.square(part).sum(axis=1) - 2 * (points @ part.T)).min(axis=1))
    return np.maximum(nearest + np.square(points).sum(axis=1), 0)


def covering_entries(entries: Entries) -> np.ndarray:
    """Return the indices of few entries that show each class and each device, the purest patch of each class."""
    shares = entries.shares
    chosen: list[int] = []
    for index in np.argsort(shares.sum(axis=0), kind="stable").tolist():
        if not (shares[chosen, index] > 0).any():
            chosen.append(int(shares[:, index].argmax()))
    for device in np.unique(entries.devices).tolist():
        if not (entries.devices[chosen] == device).any():
            chosen.append(int(np.flatnonzero(entries.devices == device)[0]))
    return np.array(sorted(chosen), dtype=np.int64)


def balancing_weights(entries: Entries) -> np.ndarray:
    """Return the weight of each entry ``[N]``: rare classes count more, by the square root of how rare they are."""
    shares, counts = entries.shares, entries.counts.astype(np.float32)
    frequency = counts @ shares / counts.sum()  # [classes]
    return counts * (shares / np.sqrt(np.maximum(frequency, 1e-9))).sum(axis=1)


def joint_points(entries: Entries, generator: np.random.Generator) -> np.ndarray:
    """Return points ``[N, E]`` float32 whose squared distances are those of the embeddings plus those of the labels."""
    looks, labels = _projected(entries.embeddings, generator), _label_cells(entries)
    return np.hstack([_unit_spread(looks), _LABEL_SHARE * _unit_spread(labels)])


def _projected(embeddings: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return the embeddings ``[N, D]`` in few dimensions, by a random projection where D is larger."""
    if embeddings.shape[1] <= _DIMS:
        return embeddings
    directions = generator.standard_normal((embeddings.shape[1], _DIMS), dtype=np.float32)
    return embeddings @ (directions / np.float32(_DIMS**0.5))


def _label_cells(entries: Entries) -> np.ndarray:
    """Return the share of each class in each quarter of a patch, ``[N, classes * 4]``.

    In the whole patch if a side is odd, or not known.
    """
    height, width = entries.patch_size or (1, entries.labels.shape[1])
    down, right = (2 if size % 2 == 0 and entries.patch_size else 1 for size in (height, width))
    cells = entries.labels.reshape(-1, down, height // down, right, width // right)
    shares = [(cells == c).mean(axis=(2, 4), dtype=np.float32) for c in entries.classes]  # each [N, down, right]
    return np.hstack([share.reshape(len(cells), -1) for share in shares])


def _unit_spread(points: np.ndarray) -> np.ndarray:
    """Return the points around their centre, with a mean squared distance to it of 1."""
    centred = points - points.mean(axis=0)
    return centred / np.maximum(np.sqrt(np.square(centred).sum(axis=1).mean()), np.float32(1e-12))


def _strata(entries: Entries) -> np.ndarray:
    """Return the group ``[N]`` of each entry by its device and the set of classes that it shows."""
    groups = _numbered(entries.devices)
    for shown in (entries.shares > 0).T:
        groups = _numbered(2 * groups + shown)
    return groups


def _numbered(groups: np.ndarray) -> np.ndarray:
    """Return the groups ``[N]`` numbered from 0 without gaps, in the order of their numbers."""
    return np.unique(groups, return_inverse=True)[1].reshape(-1)


def _counts_of(groups: np.ndarray, counts: np.ndarray, number: int = 0) -> np.ndarray:
    """Return the patches of each group, of the ``number`` first at least."""
    return np.bincount(groups, counts, minlength=number).astype(np.int32)


def _in_order(kept: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the kept entries in rising order, and their counts."""
    order = np.argsort(kept)
    return kept[order], counts[order]
