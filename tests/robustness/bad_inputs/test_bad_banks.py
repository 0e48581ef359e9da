# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Bank files that are damaged, foreign or impossible: an error with the file's name and the remedy, on load."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rows import Row, table
from safetensors.numpy import load_file, save_file
from small_exports import (
    bank,
    cut,
    flipped,
    renamed,
    spoilt_bank,
)

from anomalib_aoissl.bank.storage import METADATA_KEY, read_bank, write_bank

pytest.importorskip("openvino")

Act = Callable[[Path], object]


def impossible(name: str, value: Any, **fields: Any) -> Act:
    return lambda folder: spoilt_bank(folder, name, value, **fields)


def bank_bytes(spoil: Callable[[Path], object]) -> Act:
    """Write a bank file, spoil it, and read it."""

    def act(folder: Path) -> object:
        path = write_bank(bank(), folder / "bank.safetensors")
        spoil(path)
        return read_bank(path)

    return act


def with_description(change: Callable[[dict[str, Any]], Any]) -> Act:
    """Read a bank file whose description was changed, and which has no checksum, as older ones."""

    def act(folder: Path) -> object:
        path = write_bank(bank(), folder / "bank.safetensors")
        header = path.read_bytes()[8 : 8 + int.from_bytes(path.read_bytes()[:8], "little")]
        description = json.loads(json.loads(header)["__metadata__"][METADATA_KEY])
        del description["sha256"]
        description = change(description) or description
        save_file(load_file(path), path, metadata={METADATA_KEY: json.dumps(description)})
        found = read_bank(path)
        return len(found), found.patch_size

    return act


BANKS = table(
    Row("embedding NaN", impossible("embeddings", np.nan), r"bank\.safetensors: .*not finite.*Restore a copy"),
    Row("embedding infinite", impossible("embeddings", np.inf), "embeddings that are not finite"),
    Row("embedding of length 2", impossible("embeddings", 1.8), "an embedding of length .*; all have length 1"),
    Row("embedding of zeros", impossible("embeddings", np.zeros((72, 32), np.float32)), "embedding of length 0"),
    Row("embeddings of doubles", impossible("embeddings", np.ones((72, 32))), "embeddings of type float64"),
    Row("integers of length 0", impossible("embeddings", np.zeros((72, 32), np.int8)), "8 bits whose largest value"),
    Row("embeddings in one row", impossible("embeddings", np.ones(72, np.float32)), r"entries of \{'embeddings': 72"),
    Row("embeddings missing", lambda f: read_bank(write_bank(without("embeddings"), f / "b.safetensors")), "missing"),
    Row("label without a class", impossible("labels", 3), "labels up to 3, but 3 names"),
    Row("label 254", impossible("labels", 254), "labels up to 254, but 3 names"),
    Row("labels of floats", impossible("labels", np.zeros((72, 64), np.float32)), "labels of type float32"),
    Row("label of other patches", impossible("labels", np.zeros((72, 60), np.uint8)), "8x8 px, but 60 labels"),
    Row("count 0", impossible("counts", 0), "counts down to 0; an entry stands for 1 patch at least"),
    Row("count below 0", impossible("counts", -7), "counts down to -7"),
    Row("position below 0", impossible("positions", -1), "positions down to -1"),
    Row("device without a name", impossible("device_ids", 1), "device_ids up to 1, but 1 names"),
    Row("image below 0", impossible("image_ids", -1), "image_ids up to 2, down to -1, but 3 names"),
    Row("image ids of floats", impossible("image_ids", np.zeros(72, np.float32)), r"\['image_ids'\] that are no int"),
    Row("one count less", impossible("counts", np.ones(71, np.int32)), "'counts': 71"),
    Row("no entries", lambda f: read_bank(write_bank(empty(), f / "b.safetensors")), "no entries"),
    Row("class named twice", impossible("", 0, class_names=("a", "b", "a")), "class_names with a name twice"),
    Row("image named twice", impossible("", 0, image_names=("a", "b", "a")), "image_names with a name twice"),
    Row("class named by a number", impossible("", 0, class_names=("a", "b", 3)), "class_names that are no text"),
    Row("300 classes", impossible("", 0, class_names=tuple(map(str, range(300)))), "300 classes"),
    Row("patch of 0 px", impossible("", 0, patch_size=(0, 64)), "patches of 0x64 px"),
    Row("pixel without a class", impossible("pixels.labels", 9), "labels of pixels up to 9"),
    Row("pixel without a device", impossible("pixels.device_ids", 4), "device_ids of pixels up to 4"),
    Row("pixel of weight NaN", impossible("pixels.weights", np.nan), "weights are not above 0"),
    Row("pixel of weight 0", impossible("pixels.weights", 0), "weights are not above 0"),
    Row("pixel of novelty 7", impossible("pixels.novelty", 7), "novelty is not in 0 to 2"),
    Row("pixel of fold 9", impossible("pixels.folds", 9), "folds of pixels up to 9"),
    Row("bit of an embedding", bank_bytes(lambda p: flipped(p, 0.8)), r"bank\.safetensors: its checksum is another"),
    Row("letter of a name", bank_bytes(lambda p: renamed(p, b"wire", b"wine")), "its checksum is another"),
    Row("bank cut", bank_bytes(cut), "cannot be read as a bank file"),
    Row("bank of 0 bytes", bank_bytes(lambda p: p.write_bytes(b"")), "cannot be read as a bank file"),
    Row("bank of text", bank_bytes(lambda p: p.write_text("no bank, but a text")), "cannot be read as a bank file"),
    Row("bank is a folder", read_bank, "the bank file does not exist"),
    Row("other safetensors", lambda f: foreign_bank(f / "x.safetensors"), "is a safetensors file, but no bank"),
    Row("description is a list", with_description(lambda d: [d]), "but no bank of this package"),
    Row("names are numbers", with_description(lambda d: {**d, "class_names": 3}), "the bank file is damaged"),
    Row("patch size is a text", with_description(lambda d: {**d, "patch_size": "8x8"}), "the bank file is damaged"),
    Row("names missing", with_description(lambda d: d.pop("image_names") and None), r"\['image_names'\] missing"),
    Row("file of before checksums", with_description(lambda _: None), value=(72, (8, 8))),
    Row("file of before patch sizes", with_description(lambda d: d.pop("patch_size") and None), value=(72, None)),
)


def without(name: str) -> Any:
    content = bank()
    return replace(content, entries={key: array for key, array in content.entries.items() if key != name})


def empty() -> Any:
    content = bank()
    return replace(content, entries={name: array[:0] for name, array in content.entries.items()}, pixels=None)


def foreign_bank(path: Path) -> object:
    save_file({"weight": np.zeros(3)}, path)
    return read_bank(path)


@pytest.mark.parametrize("row", BANKS)
def test_bank_files(row: Row, tmp_path: Path) -> None:
    row.check(tmp_path)
