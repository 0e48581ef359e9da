# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The bank file: what was saved comes back, what is damaged or of others raises, a run extends it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.engine import Engine
from safetensors.torch import load_file, save_file

from anomalib_aoissl import AOISSLRetrieval, SegmentationFolder
from anomalib_aoissl.bank import storage as bank_storage
from anomalib_aoissl.bank.content import BankArrays
from anomalib_aoissl.bank.storage import METADATA_KEY, BankFileError, read_bank, write_bank
from anomalib_aoissl.encoder.vit import PatchEncoder
from anomalib_aoissl.retrieval.memory.checkpoint_bank import load_content
from anomalib_aoissl.retrieval.memory.memory_bank import MemoryBank
from anomalib_aoissl.retrieval.model_editing import encoder_hash


@pytest.fixture
def content() -> BankArrays:
    bank = MemoryBank(16, (4, 4), budget=40)
    bank.class_names = ["background", "wire", "ball"]
    masks = torch.randint(0, 3, (4, 16, 16)).to(torch.uint8)
    bank.add(torch.randn(4, 16, 16), masks, ["a", "b", "a", "b"], [f"image{i}" for i in range(4)])
    bank.finish()
    bank.encoder_hash = "a" * 64
    return bank.content()


def test_what_was_saved_comes_back(content: BankArrays, tmp_path: Path) -> None:
    path = write_bank(content, tmp_path / "new" / "bank.safetensors")
    loaded = load_content(path, "a" * 64)
    assert replace(loaded, entries={}) == replace(content, entries={})
    assert set(loaded.entries) == set(content.entries)
    for name, array in content.entries.items():
        np.testing.assert_array_equal(loaded.entries[name], array, strict=True)
    assert int(loaded.entries["counts"].sum()) == 64  # a condensed bank knows what its entries stand for


def test_the_file_is_plain_safetensors_with_its_version(content: BankArrays, tmp_path: Path) -> None:
    path = write_bank(content, tmp_path / "bank.safetensors")
    assert set(load_file(path)) == {"embeddings", "labels", "device_ids", "image_ids", "positions", "counts"}
    header = json.loads(path.read_bytes()[8 : 8 + int.from_bytes(path.read_bytes()[:8], "little")])
    assert json.loads(header["__metadata__"][METADATA_KEY])["version"] == 1


def test_a_save_that_fails_leaves_the_old_file(
    content: BankArrays, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_bank(content, tmp_path / "bank.safetensors")
    before = path.read_bytes()

    def broken(_: object, file: Path, **__: object) -> None:
        file.write_bytes(b"half")
        msg = "disk full"
        raise OSError(msg)

    monkeypatch.setattr("safetensors.numpy.save_file", broken)
    with pytest.raises(OSError, match="disk full"):
        write_bank(content, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "header"])
def test_a_corrupt_file_raises(content: BankArrays, tmp_path: Path, damage: str) -> None:
    path = write_bank(content, tmp_path / "bank.safetensors")
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[:-100], "empty": b"", "text": b"no bank", "header": b"\xff" + whole[1:]}[damage])
    with pytest.raises(BankFileError, match=r"bank.safetensors: cannot be read as a bank file .* Restore a copy"):
        read_bank(path)


def test_a_missing_file_and_a_file_of_others_raise(tmp_path: Path) -> None:
    with pytest.raises(BankFileError, match="does not exist"):
        read_bank(tmp_path / "bank.safetensors")
    save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(BankFileError, match="is a safetensors file, but no bank"):
        read_bank(tmp_path / "other.safetensors")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("embeddings", float("nan"), "embeddings that are not finite"),
        ("labels", 3, "labels up to 3, but 3 names"),
        ("device_ids", 2, "device_ids up to 2, but 2 names"),
        ("image_ids", -1, "image_ids up to"),
    ],
)
def test_contents_that_do_not_fit_together_raise(
    content: BankArrays, tmp_path: Path, name: str, value: float, message: str
) -> None:
    entries = {key: array.copy() for key, array in content.entries.items()}
    entries[name].reshape(-1)[0] = value
    path = write_bank(replace(content, entries=entries), tmp_path / "bank.safetensors")
    with pytest.raises(BankFileError, match=message):
        read_bank(path)


def test_entries_of_other_numbers_raise(content: BankArrays, tmp_path: Path) -> None:
    entries = {**content.entries, "embeddings": content.entries["embeddings"][1:]}
    path = write_bank(replace(content, entries=entries), tmp_path / "bank.safetensors")
    with pytest.raises(BankFileError, match=r"damaged \(entries of \{'embeddings': 39, 'labels': 40"):
        read_bank(path)


def test_another_version_raises(content: BankArrays, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bank_storage, "VERSION", 2)
    path = write_bank(content, tmp_path / "bank.safetensors")
    monkeypatch.undo()
    with pytest.raises(BankFileError, match="is a bank file of version 2, this package reads version 1"):
        read_bank(path)


def test_another_encoder_raises(content: BankArrays, tmp_path: Path) -> None:
    path = write_bank(content, tmp_path / "bank.safetensors")
    with pytest.raises(BankFileError, match="filled with the encoder aaaaaaaaaaaa, this model's is bbbbbbbbbbbb"):
        load_content(path, "b" * 64)


def test_encoders_with_other_embeddings_have_other_hashes(tiny_encoder: dict) -> None:
    def make(**arguments: object) -> PatchEncoder:
        return PatchEncoder(tiny_encoder, **{"image_size": (16, 24), "pretrained": False, **arguments})

    changed = make()
    changed.vit.blocks[1].mlp.fc2.bias.data[3] += 1e-3
    encoders = [make(), make(image_size=(32, 32)), make(in_channels=1), changed]
    assert len({encoder_hash(encoder) for encoder in encoders}) == len(encoders)
    assert encoder_hash(make()) == encoder_hash(make())


def train(
    folder: Path, drawn_folder: Path, tiny_encoder: dict, device: list[str], **arguments: object
) -> AOISSLRetrieval:
    model = AOISSLRetrieval(
        encoder={**tiny_encoder, "pretrained": False}, **{"image_size": (64, 96), "visualizer": False, **arguments}
    )
    data = SegmentationFolder(drawn_folder, devices=device, num_workers=0, test_ratio=0.25, val_ratio=0.25)
    options = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
    Engine(default_root_dir=folder, **options).fit(model, datamodule=data)
    return model.eval()


def test_training_with_a_bank_extends_it(drawn_folder: Path, tiny_encoder: dict, tmp_path: Path) -> None:
    old = train(tmp_path, drawn_folder, tiny_encoder, ["soic8_gold"])
    path = write_bank(old.model.bank.content(), tmp_path / "old.safetensors")
    extended = train(tmp_path, drawn_folder, tiny_encoder, ["sot23_copper"], bank={"extends": path})
    at_once = train(tmp_path, drawn_folder, tiny_encoder, ["soic8_gold", "sot23_copper"])
    assert extended.model.bank.describe()["images"] == 2 * old.model.bank.describe()["images"]
    images = torch.rand(2, 3, 64, 96)
    assert torch.equal(extended(images).pred_mask, at_once(images).pred_mask)
    torch.testing.assert_close(extended(images).anomaly_map, at_once(images).anomaly_map)
    assert type(extended.hparams["bank"]["extends"]) is str  # plain data, which a checkpoint may hold

    with pytest.raises(BankFileError, match="Train again to fill a new bank, or use the model that filled this one"):
        train(tmp_path, drawn_folder, tiny_encoder, ["sot23_copper"], bank={"extends": path}, image_size=(64, 64))
