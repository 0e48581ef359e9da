# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Banks of numpy arrays that are condensed, as on the line: what stays, by hand, and that nothing vanishes."""

from dataclasses import replace

import numpy as np
import pytest

from anomalib_aoissl.bank.condensing import condensed
from anomalib_aoissl.bank.content import BankArrays
from anomalib_aoissl.retrieval.editing import BankContent, content_from
from anomalib_aoissl.retrieval.memory_bank import MemoryBank

PATCH = (2, 4)


def make_bank(embeddings: np.ndarray, labels: np.ndarray, devices: np.ndarray) -> BankArrays:
    number = len(embeddings)
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    rows = {
        "embeddings": unit.astype(np.float32),
        "labels": np.repeat(labels.astype(np.uint8)[:, np.newaxis], 8, axis=1),
        "device_ids": devices.astype(np.int32),
        "image_ids": devices.astype(np.int32),
        "positions": np.arange(number, dtype=np.int32),
        "counts": np.ones(number, np.int32),
    }
    return BankArrays(rows, ("bg", "wire", "ball"), ("a", "b"), ("x", "y"))


def drawn(number: int = 400, dims: int = 40) -> BankArrays:
    """Return a bank whose rows are background nearly all, of the first device nearly all."""
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
    assert set(np.unique(small.rows["labels"])) == {0, 1, 2}
    assert small.device_names == ("a", "b")
    assert small.rows["counts"].sum() == 400
    for index, position in enumerate(small.rows["positions"]):  # each row is one of the bank's, untouched
        np.testing.assert_array_equal(small.rows["embeddings"][index], bank.rows["embeddings"][position])
        np.testing.assert_array_equal(small.rows["labels"][index], bank.rows["labels"][position])
    again = condensed(drawn(), size, PATCH)
    assert again.rows["positions"].tolist() == small.rows["positions"].tolist()


def test_rows_that_are_the_same_become_one() -> None:
    five = np.random.default_rng(1).normal(size=(5, 6))
    which = np.random.default_rng(2).permutation(np.repeat(np.arange(5), 20))
    small = condensed(make_bank(five[which], np.zeros(100), np.zeros(100)), 5, PATCH)
    assert sorted(which[small.rows["positions"]].tolist()) == [0, 1, 2, 3, 4]
    assert small.rows["counts"].tolist() == [20] * 5


def test_rare_classes_keep_more_of_their_rows() -> None:
    bank = drawn()
    wires = int((bank.rows["labels"][:, 0] == 1).sum())
    kept = int((condensed(bank, 100, PATCH).rows["labels"][:, 0] == 1).sum())
    assert kept / wires > 1.5 * (100 / 400)


def test_small_banks_stay_and_too_small_sizes_are_refused() -> None:
    bank = drawn()
    assert condensed(bank, 400, PATCH) is bank
    with pytest.raises(ValueError, match=r"A bank of 3 rows cannot hold .*: 4 rows at least. Allow a larger bank"):
        condensed(bank, 3, PATCH)


def test_the_line_keeps_the_rows_that_training_keeps() -> None:
    bank = replace(drawn(dims=64), device_names=("a",))
    bank.rows["device_ids"][:], bank.rows["image_ids"][:] = 0, 0
    trained = MemoryBank(64, PATCH)
    trained.take(content_from(bank))
    trained.budget = 60
    trained.merge(BankContent(tuple(tensor[:0] for tensor in trained.content().rows), bank.class_names))
    assert trained.positions.tolist() == condensed(bank, 60, PATCH).rows["positions"].tolist()
