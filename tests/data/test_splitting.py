# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Splits partition the records, share no device where devices split, and are the same for the same seed."""

from pathlib import Path

import pytest

from anomalib_aoissl.data.errors import DatasetError
from anomalib_aoissl.data.finding.listing import Record
from anomalib_aoissl.data.finding.splitting import select_devices, split_by_device, split_by_ratio, take_shots


def make_records(counts: dict[str, int], *, labelled: bool = True) -> list[Record]:
    return [
        Record(f"{device}_{unit}", (Path(f"{device}_{unit}.png"),), Path("mask.png") if labelled else None, device)
        for device, count in counts.items()
        for unit in range(count)
    ]


RECORDS = make_records({"a": 10, "b": 20, "c": 1})
NONE_NAMED = {"train_devices": None, "val_devices": None, "test_devices": None, "val_ratio": 0.0, "seed": 0}


def count(records: list[Record]) -> dict[str, int]:
    return {name: sum(record.device == name for record in records) for name in "abc"}


def test_ratio_divides_each_device_and_partitions() -> None:
    splits = split_by_ratio(RECORDS, val_ratio=0.1, test_ratio=0.3, seed=3)
    assert count(splits.test) == {"a": 3, "b": 6, "c": 0}
    assert count(splits.val) == {"a": 1, "b": 2, "c": 0}
    assert count(splits.train) == {"a": 6, "b": 12, "c": 1}
    assert sorted(r.stem for part in (splits.train, splits.val, splits.test) for r in part) == sorted(
        r.stem for r in RECORDS
    )


def test_validation_devices_alone_leave_the_others_to_the_ratio() -> None:
    splits = split_by_ratio(RECORDS, val_ratio=0.1, test_ratio=0.3, seed=3, val_devices=["a"])
    assert count(splits.val) == {"a": 10, "b": 0, "c": 0}
    assert count(splits.test) == {"a": 0, "b": 6, "c": 0}
    assert count(splits.train) == {"a": 0, "b": 14, "c": 1}
    with pytest.raises(DatasetError, match="val_devices: the device 'd' does not exist"):
        split_by_ratio(RECORDS, val_ratio=0.1, test_ratio=0.3, seed=3, val_devices=["d"])
    with pytest.raises(DatasetError, match="none is left to train on"):
        split_by_ratio(RECORDS, val_ratio=0.1, test_ratio=0.3, seed=3, val_devices=["a", "b", "c"])


def test_same_seed_same_split_whatever_the_order_and_the_other_devices() -> None:
    first = split_by_ratio(RECORDS, val_ratio=0.1, test_ratio=0.3, seed=3)
    shuffled = split_by_ratio(RECORDS[::-1], val_ratio=0.1, test_ratio=0.3, seed=3)
    assert first == shuffled
    alone = split_by_ratio(RECORDS[:10], val_ratio=0.1, test_ratio=0.3, seed=3)
    assert [r.stem for r in alone.test] == [r.stem for r in first.test if r.device == "a"]
    assert split_by_ratio(RECORDS, val_ratio=0.1, test_ratio=0.3, seed=4) != first


def test_devices_that_are_not_named_go_to_the_other_side() -> None:
    splits = split_by_device(RECORDS, **{**NONE_NAMED, "train_devices": ["a"]})
    assert count(splits.train) == {"a": 10, "b": 0, "c": 0}
    assert count(splits.test) == {"a": 0, "b": 20, "c": 1}
    splits = split_by_device(RECORDS, **{**NONE_NAMED, "test_devices": ["a"], "val_devices": ["c"]})
    assert (count(splits.train), count(splits.val), count(splits.test)) == (
        {"a": 0, "b": 20, "c": 0},
        {"a": 0, "b": 0, "c": 1},
        {"a": 10, "b": 0, "c": 0},
    )


def test_validation_comes_from_the_training_devices() -> None:
    splits = split_by_device(RECORDS, **{**NONE_NAMED, "train_devices": ["a"], "val_ratio": 0.2})
    assert (count(splits.train)["a"], count(splits.val)["a"]) == (8, 2)
    assert not {r.stem for r in splits.train} & {r.stem for r in splits.val}


def test_a_leak_and_an_unknown_device_raise() -> None:
    with pytest.raises(DatasetError, match=r"train_devices and test_devices share \['a'\].*leaks"):
        split_by_device(RECORDS, **{**NONE_NAMED, "train_devices": ["a"], "test_devices": ["a", "b"]})
    with pytest.raises(DatasetError, match=r"val_devices and test_devices share \['c'\]"):
        split_by_device(RECORDS, **{**NONE_NAMED, "val_devices": ["c"], "test_devices": ["c"]})
    with pytest.raises(DatasetError, match=r"train_devices: the device 'd' does not exist.*\['a', 'b', 'c'\]"):
        split_by_device(RECORDS, **{**NONE_NAMED, "train_devices": ["d"]})
    with pytest.raises(DatasetError, match="devices: the device 'd' does not exist"):
        select_devices(RECORDS, ["d"])


def test_shots_are_nested_and_counted_for_each_device() -> None:
    one, five = take_shots(RECORDS[:30], 1, seed=7), take_shots(RECORDS[:30], 5, seed=7)
    assert count(one) == {"a": 1, "b": 1, "c": 0}
    assert count(five) == {"a": 5, "b": 5, "c": 0}
    assert {r.stem for r in one} < {r.stem for r in five}
    assert take_shots(RECORDS[:30], 1, seed=8) != one


def test_shots_count_labelled_images_only() -> None:
    records = make_records({"a": 3}) + make_records({"b": 5}, labelled=False)
    assert count(take_shots(records, None, seed=0)) == {"a": 3, "b": 0, "c": 0}
    with pytest.raises(DatasetError, match="shots=4, but the device 'a' has 3 labelled images"):
        take_shots(records, 4, seed=0)
