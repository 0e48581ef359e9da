# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Banks of numpy arrays that are condensed, as on the line: what stays, by hand, and that nothing vanishes."""

from dataclasses import replace

import numpy as np
import pytest

from anomalib_aoissl.bank.condensing import condensed
from anomalib_aoissl.bank.content import BankArrays, emptied
from anomalib_aoissl.retrieval.memory.memory_bank import MemoryBank

PATCH = (2, 4)


def make_bank(embeddings: np.ndarray, labels: np.ndarray, devices: np.ndarray) -> BankArrays:
    number = len(embeddings)
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    entries = {
        "embeddings": unit.astype(np.float32),
        "labels": np.repeat(labels.astype(np.uint8)[:, np.newaxis], 8, axis=1),
        "device_ids": devices.astype(np.int32),
        "image_ids": devices.astype(np.int32),
        "positions": np.arange(number, dtype=np.int32),
        "counts": np.ones(number, np.int32),
    }
    return BankArrays(entries, ("bg", "wire", "ball"), ("a", "b"), ("x", "y"))


def drawn(number: int = 400, dims: int = 40) -> BankArrays:
    """Return a bank whose entries are background nearly all, of the first device nearly all."""
    generator = np.random.default_rng(0)
    labels = np.where(generator.random(number) < 0.02, 1, 0)
    labels[7], labels[[9, 11]] = 2, 0
    devices = np.zeros(number)
    devices[[9, 11]] = 1
    return make_bank(generator.normal(size=(number, dims)), labels, devices)


@pytest.mark.parametrize("size", [5, 37, 399])
def test_the_number_is_kept_to_and_no_class_no_device_and_no_patch_vanishes(size: int) -> None:
    bank = drawn()
    small = condensed(bank, size, PATCH)
    assert len(small) == size
    assert set(np.unique(small.entries["labels"])) == {0, 1, 2}
    assert small.device_names == ("a", "b")
    assert small.entries["counts"].sum() == 400
    for index, position in enumerate(small.entries["positions"]):  # each entry is one of the bank's, untouched
        np.testing.assert_array_equal(small.entries["embeddings"][index], bank.entries["embeddings"][position])
        np.testing.assert_array_equal(small.entries["labels"][index], bank.entries["labels"][position])
    again = condensed(drawn(), size, PATCH)
    assert again.entries["positions"].tolist() == small.entries["positions"].tolist()


def test_entries_that_are_the_same_become_one() -> None:
    five = np.random.default_rng(1).normal(size=(5, 6))
    which = np.random.default_rng(2).permutation(np.repeat(np.arange(5), 20))
    small = condensed(make_bank(five[which], np.zeros(100), np.zeros(100)), 5, PATCH)
    assert sorted(which[small.entries["positions"]].tolist()) == [0, 1, 2, 3, 4]
    assert small.entries["counts"].tolist() == [20] * 5


def test_rare_classes_keep_more_of_their_entries() -> None:
    bank = drawn()
    wires = int((bank.entries["labels"][:, 0] == 1).sum())
    kept = int((condensed(bank, 100, PATCH).entries["labels"][:, 0] == 1).sum())
    assert kept / wires > 1.5 * (100 / 400)


def test_small_banks_stay_and_too_small_sizes_raise() -> None:
    bank = drawn()
    assert condensed(bank, 400, PATCH) is bank
    with pytest.raises(ValueError, match=r"A bank of 3 entries cannot hold .*: 4 entries at least. Allow a larger"):
        condensed(bank, 3, PATCH)


def test_the_line_keeps_the_entries_that_training_keeps() -> None:
    bank = replace(drawn(dims=64), device_names=("a",))
    bank.entries["device_ids"][:], bank.entries["image_ids"][:] = 0, 0
    trained = MemoryBank(64, PATCH)
    trained.take(bank)
    trained.budget = 60
    trained.merge(emptied(bank))
    assert trained.positions.tolist() == condensed(bank, 60, PATCH).entries["positions"].tolist()
