# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""A bank within a number of rows, by numpy alone: what a model on the line does, where `condensing` needs torch.

The rule is simpler than those of `condensing`: groups are cut at their middle, not where their error is largest, and no
row is moved.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from anomalib_aoissl.data.indices import IGNORE_INDEX

from .bank_arrays import BankArrays, float_embeddings, with_used_names

_DIMS = 32
"""Dimensions that embeddings are projected to before they are compared."""

_LABEL_SHARE = 0.5
"""Weight of the labels' differences against the embeddings'; `condensing` has 2, which was not tried with this rule."""


def condensed(bank: BankArrays, size: int, patch_size: tuple[int, int]) -> BankArrays:
    """Return the bank with at most ``size`` rows, each of which stands for rows that look and are labelled alike.

    Rows of one device that show the same classes are cut in two halves along the axis on which they differ most, and
    again, until there are ``size`` groups; classes that are rare get more of them. Of each group the row nearest to
    its middle stays. No class and no device vanishes. The same for the same bank, always.

    Args:
        bank: The bank; one that is small enough is returned as it is.
        size: Rows to keep.
        patch_size: (height, width) of a patch, px.

    Raises:
        ValueError: If there are more sets of classes and devices than ``size``.
    """
    if len(bank) <= size:
        return bank
    labels, counts = bank.rows["labels"], bank.rows["counts"]
    shares = np.stack([(labels == index).mean(axis=1) for index in range(len(bank.class_names))], axis=1)
    groups = _strata(bank.rows["device_ids"], shares)
    numbers = np.bincount(groups)
    if size < len(numbers):
        msg = f"bank_size={size} cannot hold a row of each device and set of classes: {len(numbers)} at least."
        raise ValueError(msg)
    frequency = (shares * counts[:, np.newaxis]).sum(axis=0) / counts.sum()
    weights = counts * (shares / np.sqrt(np.maximum(frequency, 1e-9))).sum(axis=1)
    points = _points(bank, patch_size)
    groups = _divided(points, groups, _quotas(np.bincount(groups, weights), numbers, size))
    kept = np.sort(_middles(points, groups))
    rows = {name: array[kept] for name, array in bank.rows.items()}
    rows["counts"] = np.bincount(groups, counts).astype(np.int32)[groups[kept]]
    return with_used_names(replace(bank, rows=rows))


def _strata(devices: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Return the group ``[N]`` of each row by its device and the set of classes that it shows."""
    keys = np.column_stack([devices, shares > 0])
    return np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1)


def _quotas(weights: np.ndarray, numbers: np.ndarray, size: int) -> np.ndarray:
    """Return how many rows each group keeps: at least one, at most its number, else as its weight; ``size`` in all."""
    quotas = np.ones(len(numbers), dtype=np.int64)
    while (left := size - quotas.sum()) > 0:
        open_groups = np.flatnonzero(quotas < numbers)
        wanted = weights[open_groups] / weights[open_groups].sum() * left
        most = np.argsort(-wanted, kind="stable")[:left]
        more = np.floor(wanted).astype(np.int64)
        if not more.any():
            more[most] = 1
        quotas[open_groups] = np.minimum(quotas[open_groups] + more, numbers[open_groups])
    return quotas


def _points(bank: BankArrays, patch_size: tuple[int, int]) -> np.ndarray:
    """Return points ``[N, E]`` whose distances are those of the embeddings and of the labels in quarters of a patch."""
    embeddings, labels = float_embeddings(bank.rows), bank.rows["labels"]
    if embeddings.shape[1] > _DIMS:
        directions = np.random.default_rng(0).standard_normal((embeddings.shape[1], _DIMS), dtype=np.float32)
        embeddings = embeddings @ directions
    rows, columns = (2 if length % 2 == 0 else 1 for length in patch_size)
    cells = labels.reshape(-1, rows, patch_size[0] // rows, columns, patch_size[1] // columns)
    present = [index for index in np.unique(labels).tolist() if index != IGNORE_INDEX]
    shown = [(cells == index).mean(axis=(2, 4), dtype=np.float32).reshape(len(labels), -1) for index in present]
    return np.hstack([_unit_spread(embeddings), _LABEL_SHARE * _unit_spread(np.hstack(shown))])


def _unit_spread(points: np.ndarray) -> np.ndarray:
    """Return the points around their middle, with a mean squared distance to it of 1."""
    centred = points - points.mean(axis=0)
    return centred / max(float(np.sqrt((centred**2).sum(axis=1).mean())), 1e-12)


def _divided(points: np.ndarray, groups: np.ndarray, quotas: np.ndarray) -> np.ndarray:
    """Return the groups ``[N]`` cut in two, all at once, until each has a quota of one."""
    while (quotas > 1).any():
        means, squares, numbers = _means(points, groups), _means(points**2, groups), np.bincount(groups)
        axes = (squares - means**2).argmax(axis=1)  # the widest of each group
        order = np.lexsort((points[np.arange(len(points)), axes[groups]], groups))
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order)) - np.repeat(np.cumsum(numbers) - numbers, numbers)
        first = quotas - quotas // 2
        cut = np.clip(np.rint(numbers * first / quotas).astype(np.int64), first, numbers - (quotas - first))
        used, groups = np.unique(2 * groups + (rank >= cut[groups]), return_inverse=True)
        groups, parts = groups.reshape(-1), np.stack([first, quotas - first], axis=1)
        quotas = parts[used // 2, used % 2]
    return groups


def _middles(points: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return the row of each group that is nearest to its mean."""
    distances = ((points - _means(points, groups)[groups]) ** 2).sum(axis=1)
    order = np.lexsort((distances, groups))
    return order[np.flatnonzero(np.diff(groups[order], prepend=-1))]


def _means(points: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return the mean ``[G, E]`` of each group; each has a row."""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    return np.add.reduceat(points[order], starts) / np.bincount(groups)[:, np.newaxis]
