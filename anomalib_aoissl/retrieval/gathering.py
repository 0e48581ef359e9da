# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""A bank that several processes fill: what each added becomes what all added, the same in each of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import distributed

from anomalib_aoissl.bank.content import joint_names

from .editing import ENTRY_BUFFERS, joined_entries

_DEVICES, _IMAGES, _POSITIONS = (ENTRY_BUFFERS.index(name) for name in ("device_ids", "image_ids", "positions"))

Added = tuple[tuple[torch.Tensor, ...] | None, tuple[str, ...], tuple[str, ...]]
"""Entries, None where there are none, and the names of devices and images that their ids index."""


def gathered(added: Added, device_names: Sequence[str], image_names: Sequence[str]) -> Added:
    """Return the entries and names that all processes added, ordered by image and position, images by name.

    The order that the images came in, which shuffling changes, and the number of processes make no difference. An image
    that several processes added, since shares of a data set are filled up to equal sizes with images that others have,
    counts once. With one process, or where processes do not know of each other, only the order changes.

    Args:
        added: What this process added.
        device_names: Names that the bank had before, the same in all processes; they stay the first.
        image_names: The same of images.
    """
    parts = _of_all_processes((None if added[0] is None else tuple(t.cpu() for t in added[0]), *added[1:]))
    devices = _all_names(device_names, [part[1] for part in parts])
    images = _all_names(image_names, [part[2] for part in parts])
    filled = [part for part in parts if part[0] is not None]
    if not filled:
        return None, devices, images
    entries = joined_entries([_renumbered(part, devices, images) for part in filled])
    order = torch.arange(len(entries[0]))
    for column in (_POSITIONS, _IMAGES, _DEVICES):  # the last sort decides
        order = order[entries[column][order].argsort(stable=True)]
    entries = tuple(tensor[order] for tensor in entries)
    if len(parts) > 1:
        kept = _first_of_each_patch(entries, images)
        entries = tuple(tensor[kept] for tensor in entries)
    return entries, devices, images


def _of_all_processes(mine: Added) -> list[Added]:
    """Return what each process has, in the order of their ranks."""
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return [mine]
    parts: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(parts, mine)
    return parts


def _all_names(first: Sequence[str], others: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Return the first names in their order, and after them the others in alphabetical order."""
    return (*first, *sorted({name for names in others for name in names} - set(first)))


def _renumbered(part: Added, devices: Sequence[str], images: Sequence[str]) -> tuple[torch.Tensor, ...]:
    """Return entries with ids that index these names."""
    entries = list(part[0] or ())
    for column, names, old in ((_DEVICES, devices, part[1]), (_IMAGES, images, part[2])):
        entries[column] = torch.from_numpy(joint_names(names, old)[1])[entries[column].long()]
    return tuple(entries)


def _first_of_each_patch(entries: tuple[torch.Tensor, ...], images: Sequence[str]) -> torch.Tensor:
    """Return which of ordered entries to keep, ``[N]`` booleans: one of each patch; images without a name differ."""
    kept = torch.ones(len(entries[0]), dtype=torch.bool)
    same = torch.stack([entries[column][1:] == entries[column][:-1] for column in (_DEVICES, _IMAGES, _POSITIONS)]).all(
        dim=0
    )
    named = torch.tensor([bool(name) for name in images])[entries[_IMAGES][1:].long()]
    kept[1:] = ~(same & named)
    return kept
