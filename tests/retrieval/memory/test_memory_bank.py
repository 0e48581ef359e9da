# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The memory bank: entries know their labels and origin, ignored patches stay out, any size is loaded."""

from pathlib import Path

import pytest
import torch

from anomalib_aoissl.bank.patches import patch_labels, patches_to_image
from anomalib_aoissl.retrieval.memory.memory_bank import MemoryBank


def make_bank(images: int = 2) -> MemoryBank:
    bank = MemoryBank(4, (2, 3))
    generator = torch.Generator().manual_seed(3)
    embeddings = torch.randn(images, 6, 4, generator=generator)  # a grid of 2 x 3 patches of 2 x 3 px
    masks = torch.randint(0, 3, (images, 4, 9), generator=generator).to(torch.uint8)
    masks[0, :2, :3] = 255
    bank.class_names = ["background", "wire", "ball"]
    bank.add(embeddings, masks, [f"device{i}" for i in range(images)], [f"image{i}" for i in range(images)])
    bank.finish()
    return bank


def test_patch_labels_are_row_major_and_inverted_by_patches_to_image() -> None:
    mask = torch.arange(36, dtype=torch.uint8).reshape(1, 4, 9)
    labels = patch_labels(mask, (2, 3))
    assert labels.shape == (1, 6, 6)
    assert labels[0, 1].tolist() == [3, 4, 5, 12, 13, 14]
    assert labels[0, 3].tolist() == [18, 19, 20, 27, 28, 29]
    assert torch.equal(patches_to_image(labels, (2, 3), (2, 3)), mask)
    with pytest.raises(ValueError, match="4x9 px are not divided by patches of 3x3"):
        patch_labels(mask, (3, 3))


def test_entries_are_of_unit_length_and_know_their_origin() -> None:
    bank = make_bank()
    assert len(bank) == 11  # twelve patches, one of them ignored whole
    torch.testing.assert_close(bank.embeddings.norm(dim=-1), torch.ones(11))
    assert bank.device_ids.tolist() == [0] * 5 + [1] * 6
    assert [bank.image_names[i] for i in bank.image_ids.tolist()] == ["image0"] * 5 + ["image1"] * 6
    assert bank.labels.dtype == torch.uint8


def test_describe_counts() -> None:
    description = make_bank().describe()
    assert description["entries"] == 11
    assert description["entries_of_device"] == {"device0": 5, "device1": 6}
    assert sum(description["pixels_of_class"].values()) == 66
    assert description["megabytes"] == pytest.approx(11 * (4 * 4 + 6 + 4 + 4 + 4) / 1e6)


def test_any_number_of_entries_and_all_names_load_with_weights_only(tmp_path: Path) -> None:
    bank = make_bank()
    torch.save(bank.state_dict(), tmp_path / "bank.pt")
    loaded = MemoryBank(4, (2, 3))
    loaded.load_state_dict(torch.load(tmp_path / "bank.pt", weights_only=True))
    for name, tensor in bank.named_buffers():
        assert torch.equal(getattr(loaded, name), tensor)
    assert loaded.device_names == ["device0", "device1"]
    assert loaded.class_names == ["background", "wire", "ball"]


def test_clear_takes_everything_out() -> None:
    bank = make_bank()
    bank.clear()
    bank.finish()
    assert len(bank) == 0
    assert bank.image_names == []


def test_a_bank_whose_budget_is_too_small_for_what_is_added_stays_as_it_was() -> None:
    bank = make_bank()
    bank.budget, before = 2, bank.content()
    bank.add(torch.randn(1, 6, 4), torch.zeros(1, 4, 9, dtype=torch.uint8), ["third"], ["third"])
    with pytest.raises(ValueError, match="2"):
        bank.finish()
    assert bank.content().image_names == before.image_names
    assert bank.content().device_names == before.device_names
    assert torch.equal(torch.from_numpy(before.entries["embeddings"]), bank.embeddings)
    bank.budget = None
    bank.add(torch.randn(1, 6, 4), torch.zeros(1, 4, 9, dtype=torch.uint8), ["third"], ["third"])
    bank.finish()
    assert bank.image_names == ["image0", "image1", "third"]
