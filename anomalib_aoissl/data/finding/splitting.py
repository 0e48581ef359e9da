# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Records to splits: by ratio, by device, and few shots for each device; pure functions, seeded."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import DatasetError
from .listing import Record


@dataclass(frozen=True)
class Splits:
    """Records of each split."""

    train: list[Record]
    val: list[Record]
    test: list[Record]


SPLIT_NAMES = ("train", "val", "test")
"""Names of the splits, and of their folders."""


def split_by_ratio(
    records: Sequence[Record],
    *,
    val_ratio: float,
    test_ratio: float,
    seed: int,
    val_devices: Sequence[str] | None = None,
) -> Splits:
    """Return train, val and test with each device's items divided by the ratios.

    With ``val_devices`` all items of these are validation, and none of the others is.

    Each device keeps at least one item for training. The counts are rounded, test first.

    Raises:
        DatasetError: If a device does not exist, or if all are validation.
    """
    splits, groups = Splits([], [], []), _by_device(records)
    if val_devices:
        check_devices(val_devices, list(groups), "val_devices")
        for device in sorted(set(val_devices)):
            splits.val.extend(groups.pop(device))
        if not groups:
            msg = f"val_devices={list(val_devices)} are all devices: none is left to train on. Take one out."
            raise DatasetError(msg)
        val_ratio = 0.0
    for device, group in groups.items():
        shuffled = _shuffled(group, seed, device)
        tests = min(round(test_ratio * len(group)), len(group) - 1)
        vals = min(round(val_ratio * len(group)), len(group) - 1 - tests)
        splits.test.extend(shuffled[:tests])
        splits.val.extend(shuffled[tests : tests + vals])
        splits.train.extend(shuffled[tests + vals :])
    return splits


def split_by_device(
    records: Sequence[Record],
    *,
    train_devices: Sequence[str] | None,
    val_devices: Sequence[str] | None,
    test_devices: Sequence[str] | None,
    val_ratio: float,
    seed: int,
) -> Splits:
    """Return splits that share no device.

    Where only one of ``train_devices`` and ``test_devices`` is given, the other gets all remaining devices. Without
    ``val_devices``, validation takes ``val_ratio`` of each training device's items.

    Raises:
        DatasetError: If a device does not exist, or stands on two sides.
    """
    known = sorted({record.device for record in records})
    chosen = {"train_devices": train_devices, "val_devices": val_devices, "test_devices": test_devices}
    for name, devices in chosen.items():
        check_devices(devices or (), known, name)
    _check_leaks(chosen)
    named = {device for devices in chosen.values() for device in devices or ()}
    rest = [device for device in known if device not in named]
    train = set(rest if train_devices is None else train_devices)
    test = set(rest if test_devices is None else test_devices)
    pool = [record for record in records if record.device in train]
    if val_devices:
        vals = set(val_devices)
        val = [record for record in records if record.device in vals]
    else:
        halves = split_by_ratio(pool, val_ratio=val_ratio, test_ratio=0.0, seed=seed)
        pool, val = halves.train, halves.val
    return Splits(pool, val, [record for record in records if record.device in test])


def select_devices(
    records: Sequence[Record], devices: Sequence[str] | None, every: Sequence[Record] | None = None
) -> list[Record]:
    """Return the records of the devices, all where none are named.

    Raises:
        DatasetError: If a device is that of none of the records, or of ``every`` record of the dataset.
    """
    if devices is None:
        return list(records)
    check_devices(devices, sorted({record.device for record in every or records}), "devices")
    return [record for record in records if record.device in set(devices)]


def take_shots(records: Sequence[Record], shots: int | None, seed: int) -> list[Record]:
    """Return ``shots`` labelled records of each device, drawn with the seed; all labelled ones for None.

    More shots contain fewer: the first of 5 shots is the one shot of the same seed.

    Raises:
        DatasetError: If a device has fewer labelled items.
    """
    labelled = [record for record in records if record.mask_path is not None]
    if shots is None:
        return labelled
    taken: list[Record] = []
    for device, group in _by_device(labelled).items():
        if len(group) < shots:
            msg = f"shots={shots}, but the device {device!r} has {len(group)} labelled images for training."
            raise DatasetError(msg)
        taken.extend(_shuffled(group, seed, device)[:shots])
    return taken


def _by_device(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Return the records of each device, devices and records in sorted order."""
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in sorted(records, key=lambda record: record.stem):
        groups[record.device].append(record)
    return dict(sorted(groups.items()))


def _shuffled(records: Sequence[Record], seed: int, device: str) -> list[Record]:
    """Return the records in an order that depends on the seed and the device alone, not on the other devices."""
    generator = np.random.default_rng([seed, *device.encode()])
    return [records[index] for index in generator.permutation(len(records))]


def check_devices(devices: Iterable[str], known: Sequence[str], argument: str) -> None:
    """Validate that each device is that of an image."""
    for device in devices:
        if device not in known:
            close = difflib.get_close_matches(device, known, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            msg = f"{argument}: the device {device!r} does not exist.{hint} The devices are {list(known)}."
            raise DatasetError(msg)


def _check_leaks(chosen: dict[str, Sequence[str] | None]) -> None:
    """Validate that no device stands on two sides."""
    names = list(chosen)
    for first in names:
        for second in names[names.index(first) + 1 :]:
            shared = sorted(set(chosen[first] or ()) & set(chosen[second] or ()))
            if shared:
                msg = (
                    f"{first} and {second} share {shared}: the same device on both sides leaks into the test. Take it "
                    "out of one, or use devices= with shots= to train and test on other images of the same device."
                )
                raise DatasetError(msg)
