# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The mean novelty of labelled images against a loop, and what is said of a picture that is novel all over."""

import numpy as np
import pytest

from anomalib_aoissl.bank import own_novelty as module
from anomalib_aoissl.bank.content import BankArrays
from anomalib_aoissl.bank.own_novelty import novelty_fault, own_novelty


def bank_of(images: list[int], devices: list[int], seed: int = 0) -> BankArrays:
    """Return a bank of entries of these images and devices, with drawn embeddings and counts."""
    random = np.random.default_rng(seed)
    embeddings = random.normal(size=(len(images), 6)).astype(np.float32)
    entries = {
        "embeddings": embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True),
        "labels": np.zeros((len(images), 4), np.uint8),
        "image_ids": np.array(images, np.int32),
        "device_ids": np.array(devices, np.int32),
        "positions": np.arange(len(images), dtype=np.int32),
        "counts": random.integers(1, 9, len(images)).astype(np.int32),
    }
    return BankArrays(entries, image_names=tuple(map(str, range(max(images, default=-1) + 1))))


def by_loop(bank: BankArrays, images: set[int]) -> float:
    """Return the largest mean novelty of these images, entry by entry."""
    means, e = [], bank.entries
    for image in images:
        total = weights = 0.0
        for i in np.flatnonzero(e["image_ids"] == image):
            others = [e["embeddings"][i] @ e["embeddings"][j] for j in np.flatnonzero(e["image_ids"] != image)]
            total += (1 - max(others)) * e["counts"][i]
            weights += e["counts"][i]
        means.append(total / weights)
    return max(means)


@pytest.mark.parametrize("held", [1, 14, 500])
def test_it_is_that_of_a_loop(held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_HELD", held)
    bank = bank_of([0, 0, 1, 1, 1, 2, 2], [0] * 7)
    assert own_novelty(bank) == pytest.approx(by_loop(bank, {0, 1, 2}), abs=1e-6)


def test_an_image_alone_on_its_device_does_not_count() -> None:
    bank = bank_of([0, 0, 1, 1, 2, 2], [0, 0, 0, 0, 1, 1])
    assert own_novelty(bank) == pytest.approx(by_loop(bank, {0, 1}), abs=1e-6)
    alone = bank_of([0, 0, 1, 1], [0, 0, 1, 1])
    assert own_novelty(alone) == pytest.approx(by_loop(alone, {0, 1}), abs=1e-6)


def test_an_image_with_entries_of_two_devices_counts_once() -> None:
    bank = bank_of([0, 0, 1, 1], [0, 1, 0, 1])
    assert own_novelty(bank) == pytest.approx(by_loop(bank, {0, 1}), abs=1e-6)


def test_of_a_large_bank_some_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    bank = bank_of([0, 1] * 200, [0] * 400)
    whole = own_novelty(bank)
    monkeypatch.setattr(module, "_ASKED", 200)
    assert own_novelty(bank) == pytest.approx(whole, rel=0.2)


@pytest.mark.parametrize("images", [[], [0, 0]])
def test_one_image_is_asked_of_nothing(images: list[int]) -> None:
    assert own_novelty(bank_of(images, images)) is None


def test_one_picture_again_and_again_does_not_tell_how_pictures_differ() -> None:
    bank = bank_of([0, 0, 1, 1], [0, 0, 0, 0])
    bank.entries["embeddings"][2:] = bank.entries["embeddings"][:2]
    assert own_novelty(bank) is None


def test_what_is_novel_all_over_is_another_product() -> None:
    assert novelty_fault(0.26, 0.11) == (
        "novel all over, as another product (mean novelty 0.26, at most 0.11 in labelled pictures)"
    )
    assert novelty_fault(0.2, 0.11) == ""
    assert novelty_fault(0.9, None) == ""
