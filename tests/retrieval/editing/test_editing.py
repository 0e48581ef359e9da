# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Editing a bank: what is added, removed, merged and undone is what the entries, the names and the masks say."""

import logging
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from anomalib_aoissl.encoder.vit import PatchEncoder
from anomalib_aoissl.retrieval.memory.memory_bank import MemoryBank
from anomalib_aoissl.retrieval.options import VoteOptions
from anomalib_aoissl.retrieval.torch_model import RetrievalModel

CLASSES = ["background", "wire", "ball"]
SIZE = (16, 24)


def make_bank(images: Sequence[int], classes: Sequence[str] = CLASSES, **options: object) -> MemoryBank:
    """Return a bank of these of ten images, image i of device i % 2; image 3 alone has a ball."""
    generator = torch.Generator().manual_seed(4)
    embeddings = torch.randn(10, 6, 16, generator=generator)  # a grid of 2 x 3 patches of 4 x 4 px
    masks = torch.randint(0, 2, (10, 8, 12), generator=generator).to(torch.uint8)
    masks[3, 0, 0] = 2
    bank = MemoryBank(16, (4, 4), **options)
    bank.class_names = list(classes)
    for i in images:
        bank.add(embeddings[i : i + 1], masks[i : i + 1], [f"device{i % 2}"], [f"image{i}"])
    bank.finish()
    return bank


def same(first: MemoryBank, second: MemoryBank) -> bool:
    """Return whether two banks hold the same entries in the same order, by name."""
    a, b = first.content(), second.content()
    equal = all(np.array_equal(array, b.entries[name]) for name, array in a.entries.items())
    return equal and (a.class_names, a.device_names, a.image_names) == (b.class_names, b.device_names, b.image_names)


def test_adding_again_equals_adding_at_once() -> None:
    bank = make_bank([0, 1])
    assert not same(bank, make_bank([0, 1, 2]))
    bank.merge(make_bank([2, 3]))
    assert same(bank, make_bank([0, 1, 2, 3]))


def test_a_then_b_gives_the_masks_of_a_and_b(tiny_encoder: dict) -> None:
    encoder = PatchEncoder(tiny_encoder, image_size=SIZE, pretrained=False)
    pictures, masks = torch.rand(4, 3, *SIZE), torch.randint(0, 3, (4, *SIZE)).to(torch.uint8)
    models = [RetrievalModel(encoder, VoteOptions(5)) for _ in range(2)]
    for model, steps in zip(models, ([[0, 1], [2, 3]], [[0, 1, 2, 3]]), strict=True):
        model.bank.class_names = list(CLASSES)
        for step in steps:
            model.fill(pictures[step], masks[step], ["a", "b", "a", "b"][: len(step)], [f"image{i}" for i in step])
            model.bank.finish()
    images = torch.rand(3, 3, *SIZE)
    first, second = (model(images) for model in models)
    assert torch.equal(first.pred_mask, second.pred_mask)
    torch.testing.assert_close(first.anomaly_map, second.anomaly_map)
    assert same(models[0].bank, models[1].bank)


@pytest.mark.parametrize(("what", "left"), [({"device": "device1"}, [0, 2]), ({"image": "image1"}, [0, 2, 3])])
def test_removing_leaves_the_bank_that_never_had_it(what: dict[str, str], left: list[int]) -> None:
    bank = make_bank([0, 1, 2, 3])
    assert bank.remove(**what) == 6 * (4 - len(left))
    assert same(bank, make_bank(left))


def test_removing_an_image_of_a_device() -> None:
    bank = make_bank([0, 1, 2])
    assert bank.remove(device="device0", image="image1") == 0
    assert bank.remove(device="device0", image="image2") == 6


def test_removing_the_last_entry_of_a_class_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    bank = make_bank([0, 1, 3])
    with caplog.at_level(logging.WARNING):
        bank.remove(image="image1")
        assert not caplog.records
        bank.remove(image="image3")
    assert "no patch of ['ball'] any more" in caplog.text


def test_removing_what_is_not_there_raises_with_what_is() -> None:
    bank = make_bank([0, 1])
    with pytest.raises(ValueError, match=r"no device 'device7'. It has \['device0', 'device1'\]"):
        bank.remove(device="device7")
    with pytest.raises(ValueError, match=r"no image 'x'. It has \['image0', 'image1'\]"):
        bank.remove(image="x")
    with pytest.raises(ValueError, match="Say what to remove"):
        bank.remove()


@pytest.mark.parametrize("edit", ["finish", "remove", "merge", "clear"])
def test_undo_brings_back_what_was_before_the_last_edit(edit: str) -> None:
    bank = make_bank([0, 1])
    if edit == "finish":
        bank.add(torch.randn(1, 6, 16), torch.zeros(1, 8, 12, dtype=torch.uint8), ["new"], ["new"])
        bank.finish()
    elif edit == "remove":
        bank.remove(device="device0")
    elif edit == "merge":
        bank.merge(make_bank([2]))
    else:
        bank.clear()
    assert not same(bank, make_bank([0, 1]))
    bank.undo()
    assert same(bank, make_bank([0, 1]))
    with pytest.raises(RuntimeError, match="no edit of the bank to undo"):
        bank.undo()


def test_classes_are_mapped_by_name_when_banks_are_merged() -> None:
    bank, other = make_bank([0, 1]), make_bank([2, 3], classes=["background", "ball"])
    expected = other.labels.clone()
    other.remove(image="image3")
    bank.merge(other)
    added = bank.labels[12:]
    assert bank.class_names == CLASSES
    assert torch.equal(added == 2, expected[:6] == 1)  # its class 1 is the ball, our class 2
    assert set(added.unique().tolist()) == {0, 2}


def test_banks_whose_classes_cannot_be_mapped_raise_with_both_lists() -> None:
    bank, before = make_bank([0]), make_bank([0])
    with pytest.raises(ValueError, match=r"\['background', 'wire', 'ball'\] here, \['background', 'glue', 'ball'\] in"):
        bank.merge(make_bank([1], classes=["background", "glue", "ball"]))
    assert same(bank, before)


def test_ignored_pixels_stay_ignored_when_banks_are_merged() -> None:
    other = make_bank([2])
    other.labels[0, 5] = 255
    bank = make_bank([0])
    bank.merge(other)
    assert (bank.labels == 255).nonzero().tolist() == [[6, 5]]


def test_banks_of_other_encoders_raise() -> None:
    bank, other = make_bank([0]), make_bank([1])
    bank.encoder_hash, other.encoder_hash = "a" * 64, "b" * 64
    with pytest.raises(ValueError, match="was filled with the encoder bbbbbbbbbbbb, this model's is aaaaaaaaaaaa"):
        bank.merge(other)
    with pytest.raises(ValueError, match="entries of 16 and 8 dims, and 16 and 16 labels"):
        bank.merge(MemoryBank(8, (4, 4)))


def test_the_same_image_in_both_banks_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    bank = make_bank([0, 1])
    with caplog.at_level(logging.WARNING):
        bank.merge(make_bank([1, 2]))
    assert "patches of 1 images, which vote twice now, such as image1" in caplog.text
    assert bank.describe()["entries_of_image"] == {"image0": 6, "image1": 12, "image2": 6}


def test_a_merged_bank_keeps_its_budget_and_one_that_cannot_stays_as_it_was() -> None:
    bank = make_bank([0, 1, 2], budget=10)
    bank.merge(make_bank([3, 4, 5]))
    assert len(bank) == 10
    assert bank.describe()["patches"] == 36
    assert bank.describe()["pixels_of_class"]["ball"] >= 1
    small = make_bank([0, 2], budget=1)
    before = small.content()
    with pytest.raises(ValueError, match="Allow a larger bank"):
        small.merge(make_bank([1, 3]))
    assert all(np.array_equal(array, small.content().entries[name]) for name, array in before.entries.items())


def test_describe_counts_by_hand() -> None:
    bank = make_bank([0, 1, 3])
    bank.encoder_hash = "c" * 64
    description = bank.describe()
    wires = int((bank.labels == 1).sum())
    shown = [int((bank.labels == index).any(dim=1).sum()) for index in (0, 1)]
    assert description == {
        "entries": 18,
        "patches": 18,
        "images": 3,
        "megabytes": pytest.approx(18 * (16 * 4 + 16 + 3 * 4) / 1e6),
        "pixels": 0,
        "megabytes_of_pixels": 0,
        "entries_of_device": {"device0": 6, "device1": 12},
        "entries_of_image": {"image0": 6, "image1": 6, "image3": 6},
        "entries_of_class": {"background": shown[0], "wire": shown[1], "ball": 1},
        "pixels_of_class": {"background": 18 * 16 - wires - 1, "wire": wires, "ball": 1},
        "encoder_hash": "c" * 64,
    }
