# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""A bank that several processes fill: what each added becomes what all added, the same in each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import distributed

from anomalib_aoissl.bank.content import REQUIRED, BankArrays, joint_names


def gathered(added: BankArrays, before: BankArrays) -> BankArrays:
    """Return the entries and names that all processes added, ordered by image and position, images by name.

    The order that the images came in, which shuffling changes, and the number of processes make no difference. An image
    that several processes added, since shares of a data set are filled up to equal sizes with images that others have,
    counts once. With one process, or where processes do not know of each other, only the order changes.

    Args:
        added: What this process added.
        before: What the bank held before, the same in all processes; its names stay the first.
    """
    parts = _of_all_processes(added)
    devices = _all_names(before.device_names, [part.device_names for part in parts])
    images = _all_names(before.image_names, [part.image_names for part in parts])
    renumbered = [_renumbered(part, devices, images) for part in parts]
    entries = {name: np.concatenate([part[name] for part in renumbered]) for name in REQUIRED}
    order = np.lexsort((entries["positions"], entries["image_ids"], entries["device_ids"]))  # the last decides
    entries = {name: array[order] for name, array in entries.items()}
    if len(parts) > 1:
        kept = _first_of_each_patch(entries, images)
        entries = {name: array[kept] for name, array in entries.items()}
    return replace(added, entries=entries, device_names=devices, image_names=images)


def _of_all_processes(mine: BankArrays) -> list[BankArrays]:
    """Return what each process has, in the order of their ranks."""
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return [mine]
    parts: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(parts, mine)
    return parts


def _all_names(first: Sequence[str], others: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Return the first names in their order, and after them the others in alphabetical order."""
    return (*first, *sorted({name for names in others for name in names} - set(first)))


def _renumbered(part: BankArrays, devices: Sequence[str], images: Sequence[str]) -> dict[str, np.ndarray]:
    """Return entries with ids that index these names."""
    entries = dict(part.entries)
    for ids, names, old in (("device_ids", devices, part.device_names), ("image_ids", images, part.image_names)):
        entries[ids] = joint_names(names, old)[1][entries[ids]]
    return entries


def _first_of_each_patch(entries: Mapping[str, np.ndarray], images: Sequence[str]) -> np.ndarray:
    """Return which of ordered entries to keep, ``[N]`` booleans: one of each patch; images without a name differ."""
    kept = np.ones(len(entries["labels"]), dtype=bool)
    columns = [entries[name] for name in ("device_ids", "image_ids", "positions")]
    same = np.all([column[1:] == column[:-1] for column in columns], axis=0)
    named = np.array([bool(name) for name in images], dtype=bool)[entries["image_ids"][1:]]
    kept[1:] = ~(same & named)
    return kept
