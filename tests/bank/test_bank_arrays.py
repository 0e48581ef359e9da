# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Banks as numpy arrays: edited entry by entry in plain Python as the check, and files that are torch's own."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from anomalib_aoissl.bank import storage as bank_storage
from anomalib_aoissl.bank.checking import damage
from anomalib_aoissl.bank.content import (
    BankArrays,
    described,
    emptied,
    float_embeddings,
    labelled_image,
    merged,
    removed,
    selected,
)
from anomalib_aoissl.bank.patches import patch_labels
from anomalib_aoissl.bank.storage import METADATA_KEY, BankFileError, read_bank, write_bank
from anomalib_aoissl.retrieval.memory.checkpoint_bank import load_content


def make_bank(
    seed: int, entries: int = 12, dtype: type = np.float32, classes: tuple[str, ...] = ("bg", "a", "b")
) -> BankArrays:
    generator = np.random.default_rng(seed)
    embeddings = generator.normal(size=(entries, 8))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    labels = generator.choice([0, 1, 2, 255], size=(entries, 4)).astype(np.uint8)
    ids = generator.integers(0, 3, (2, entries)).astype(np.int32)
    content = {
        "embeddings": embeddings.astype(dtype),
        "labels": labels,
        "device_ids": ids[0],
        "image_ids": ids[1],
        "positions": np.arange(entries, dtype=np.int32),
        "counts": generator.integers(1, 5, entries).astype(np.int32),
    }
    names = tuple(f"device{seed}-{i}" for i in range(3)), tuple(f"image{seed}-{i}" for i in range(3))
    return BankArrays(content, classes, *names, "e" * 64)


def quantised(bank: BankArrays) -> BankArrays:
    """Return the bank with int8 embeddings, made by a bank that has them."""
    like = {**bank.entries, "embeddings": np.zeros((0, 8), np.int8)}
    empty = BankArrays({name: array[:0] for name, array in like.items()}, bank.class_names)
    return merged(empty, bank)


def table(bank: BankArrays) -> list[tuple]:
    """Return each entry with names in place of ids."""
    classes = dict(enumerate(bank.class_names)) | {255: "ignored"}
    return [
        (
            [classes[int(value)] for value in bank.entries["labels"][entry]],
            bank.device_names[bank.entries["device_ids"][entry]],
            bank.image_names[bank.entries["image_ids"][entry]],
            int(bank.entries["positions"][entry]),
            int(bank.entries["counts"][entry]),
            float_embeddings(bank.entries)[entry].tolist(),
        )
        for entry in range(len(bank))
    ]


def test_removing_and_selecting_entry_by_entry() -> None:
    bank = make_bank(0)
    device, image = "device0-1", "image0-2"
    assert table(removed(bank, device=device)) == [entry for entry in table(bank) if entry[1] != device]
    assert table(removed(bank, image=image)) == [entry for entry in table(bank) if entry[2] != image]
    assert table(selected(bank, device=device)) == [entry for entry in table(bank) if entry[1] == device]
    assert table(removed(bank, image=image, device=device)) == [
        entry for entry in table(bank) if entry[1:3] != (device, image)
    ]
    assert device not in removed(bank, device=device).device_names
    assert table(selected(bank)) == table(bank)


def test_merging_maps_names_entry_by_entry() -> None:
    bank, other = make_bank(0), make_bank(1, classes=("b", "bg", "c"))
    result = merged(bank, other, new_classes=True)
    assert result.class_names == ("bg", "a", "b", "c")
    assert table(result) == table(bank) + table(other)
    assert table(merged(emptied(bank), other, new_classes=True)) == table(other)
    with pytest.raises(
        ValueError,
        match=r"\['bg', 'a', 'b'\] here, \['b', 'bg', 'c'\] in the bank to take in. \['c'\]"
        r".* with new_classes=True, the command with --new_classes\.",
    ):
        merged(bank, other)


def test_what_cannot_be_merged(caplog: pytest.LogCaptureFixture) -> None:
    bank = make_bank(0)
    with pytest.raises(ValueError, match=r"was filled with the encoder f{12}, this model's is e{12}"):
        merged(bank, BankArrays(make_bank(1).entries, bank.class_names, ("d",) * 3, ("i",) * 3, "f" * 64))
    with pytest.raises(ValueError, match="entries of 8 and 5 dims"):
        merged(
            bank,
            BankArrays({**bank.entries, "embeddings": np.zeros((12, 5))}, bank.class_names, ("d",) * 3, ("i",) * 3),
        )
    with pytest.raises(ValueError, match="do not fit into a mask of 8 bits"):
        merged(bank, make_bank(1, classes=tuple(f"c{i}" for i in range(255))), new_classes=True)
    merged(bank, bank)
    assert "patches of 3 images, which vote twice now, such as image0-0" in caplog.text


def test_the_last_entry_of_a_class_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    bank = make_bank(0)
    labels = np.where(bank.entries["device_ids"][:, None] == 2, np.uint8(2), np.uint8(0)) + np.zeros((12, 4), np.uint8)
    with caplog.at_level(logging.WARNING):
        removed(
            BankArrays({**bank.entries, "labels": labels}, bank.class_names, bank.device_names, bank.image_names),
            device="device0-2",
        )
    assert "no patch of ['b'] any more" in caplog.text


def test_embeddings_are_stored_as_the_bank_stores_them() -> None:
    single, half = make_bank(0), make_bank(1, dtype=np.float16)
    assert merged(half, single).entries["embeddings"].dtype == np.float16
    whole = quantised(single)
    assert whole.entries["embeddings"].dtype == np.int8
    largest = np.abs(single.entries["embeddings"]).max(axis=1, keepdims=True)
    assert (np.abs(float_embeddings(whole.entries) - single.entries["embeddings"]) <= largest / 127 * 0.6).all()
    again = merged(whole, whole)
    np.testing.assert_array_equal(again.entries["embeddings"][12:], whole.entries["embeddings"])  # not rounded twice
    assert merged(single, whole).entries.keys() == single.entries.keys()


def test_an_image_becomes_entries_as_in_torch() -> None:
    mask = np.random.default_rng(0).choice([0, 1, 255], (8, 12)).astype(np.uint8)
    mask[:4, :4] = 255
    labels = patch_labels(mask, (4, 4))
    blocks = [mask[row : row + 4, column : column + 4].ravel() for row in (0, 4) for column in (0, 4, 8)]
    np.testing.assert_array_equal(labels, blocks)
    np.testing.assert_array_equal(labels, patch_labels(torch.from_numpy(mask)[None], (4, 4))[0].numpy())
    bank = labelled_image(np.full((6, 4), 3.0), labels, device="d", image="i", class_names=("bg", "a"))
    assert bank.entries["positions"].tolist() == [1, 2, 3, 4, 5]
    assert bank.entries["embeddings"].tolist() == [[0.5] * 4] * 5
    assert damage(bank) == ""


def test_described_counts_by_hand() -> None:
    bank = make_bank(0)
    facts = described(bank)
    entries = table(bank)
    assert facts["entries"] == 12
    assert facts["patches"] == sum(entry[4] for entry in entries)
    assert facts["entries_of_class"] == {name: sum(name in entry[0] for entry in entries) for name in bank.class_names}
    assert facts["pixels_of_class"] == {
        name: sum(entry[0].count(name) for entry in entries) for name in bank.class_names
    }
    assert facts["entries_of_device"] == {
        name: sum(entry[1] == name for entry in entries) for name in bank.device_names
    }
    assert facts["megabytes"] == pytest.approx(12 * (8 * 4 + 4 + 4 * 4) / 1e6)


def test_files_are_those_of_torch(tmp_path: Path) -> None:
    bank = make_bank(0)
    path = write_bank(bank, tmp_path / "bank.safetensors")
    assert table(read_bank(path)) == table(bank)
    content = load_content(path, "e" * 64)
    np.testing.assert_array_equal(content.entries["embeddings"], bank.entries["embeddings"])
    assert (content.class_names, content.device_names) == (bank.class_names, bank.device_names)
    whole = quantised(bank)
    assert table(read_bank(write_bank(whole, path))) == table(whole)


def test_damaged_files_name_what_is_wrong(tmp_path: Path) -> None:
    bank, path = make_bank(0), tmp_path / "bank.safetensors"
    with pytest.raises(BankFileError, match="does not exist"):
        read_bank(path)
    path.write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00 no safetensors")
    with pytest.raises(BankFileError, match="cannot be read as a bank file"):
        read_bank(path)
    save_file({"a": np.zeros(3)}, path)
    with pytest.raises(BankFileError, match="no bank of this package"):
        read_bank(path)
    write_bank(bank, path)
    entries = load_file(path)
    header = {"version": 1, "encoder_hash": "", "class_names": ["bg", "a", "b"], "device_names": ["d"] * 3}
    cases = [
        ({**header, "version": 9, "image_names": ["i"] * 3}, entries, "version 9, this package reads version 1"),
        (header, entries, r"\['image_names'\] missing"),
        ({**header, "image_names": ["i"]}, entries, "image_ids up to 2, but 1 names"),
        (
            {**header, "image_names": ["i"] * 3},
            {**entries, "labels": entries["labels"][:5]},
            "entries of .*'labels': 5",
        ),
        ({**header, "image_names": ["i"] * 3}, {**entries, "embeddings": entries["embeddings"] * np.nan}, "not finite"),
    ]
    for description, arrays, message in cases:
        save_file(arrays, path, metadata={METADATA_KEY: json.dumps(description)})
        with pytest.raises(BankFileError, match=message):
            bank_storage.read_bank(path)
