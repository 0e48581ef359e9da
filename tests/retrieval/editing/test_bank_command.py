# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Commands on bank files and checkpoints, and the edits on the model that they rest on."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.engine import Engine

from anomalib_aoissl import AOISSLRetrieval
from anomalib_aoissl.bank.storage import BankFileError, read_bank, write_bank
from anomalib_aoissl.cli.bank import main
from anomalib_aoissl.data.describing.file_format import FileFormat
from anomalib_aoissl.retrieval.memory.checkpoint_bank import load_content

CLASSES = ["background", "wire"]
SIZE = (32, 48)


def make_model(tiny_encoder: dict, devices: list[str], **options: object) -> AOISSLRetrieval:
    """Return a model that has learnt an image of 24 patches of each device."""
    arguments = {"encoder": {**tiny_encoder, "pretrained": False}, "image_size": SIZE, **options}
    model = AOISSLRetrieval(**arguments).eval()
    model.set_dataset(CLASSES, FileFormat())
    for device in devices:
        generator = torch.Generator().manual_seed(sum(device.encode()))
        masks = torch.randint(0, 2, (1, 40, 60), generator=generator).to(torch.uint8)
        model.add(torch.rand(1, 3, 40, 60, generator=generator), masks, [device], [f"{device}.png"])
    return model


def saved(model: AOISSLRetrieval, path: Path) -> Path:
    engine = Engine(default_root_dir=path.parent / "results", logger=False, accelerator="cpu")
    engine._setup_trainer(model)
    engine.trainer.strategy.connect(model)
    engine.trainer.save_checkpoint(path)
    return path


@pytest.fixture
def bank(tiny_encoder: dict, tmp_path: Path) -> Path:
    model = make_model(tiny_encoder, ["a", "b"], head=None)
    return write_bank(model.model.bank.content(), tmp_path / "bank.safetensors")


def test_describe_prints_a_table(bank: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", str(bank), "--images", "1"]) == 0
    printed = capsys.readouterr().out
    assert (
        f"{bank}: 48 entries for 48 patches of 2 images, 0.01 MB, encoder {read_bank(bank).encoder_hash[:12]}"
        in printed
    )
    pixels = (read_bank(bank).entries["labels"] == 1).sum()
    assert re.search(rf"^wire +48 +{pixels:,}$", printed, re.MULTILINE)
    assert printed.index("a.png ") < printed.index("... and 1 more images; --images 0 lists all")


def test_remove_merge_and_export_bank_files(bank: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = read_bank(bank)
    output = tmp_path / "b.safetensors"
    assert main(["remove", str(bank), "--device", "a", "--output", str(output)]) == 0
    assert read_bank(output).device_names == ("b",)
    assert np.array_equal(read_bank(output).entries["embeddings"], before.entries["embeddings"][24:])
    assert main(["export", str(bank), str(tmp_path / "a.safetensors"), "--device", "a"]) == 0
    assert main(["merge", str(tmp_path / "a.safetensors"), str(output), "--in_place"]) == 0
    result = load_content(tmp_path / "a.safetensors", before.encoder_hash)
    assert all(np.array_equal(array, before.entries[name]) for name, array in result.entries.items())
    assert "24 entries merged with 24, 48 in all" in capsys.readouterr().out


def test_banks_are_condensed_alone_and_when_they_are_merged(
    bank: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, joined = tmp_path / "few.safetensors", tmp_path / "joined.safetensors"
    assert main(["condense", str(bank), "20", "--output", str(output)]) == 0
    assert "48 entries condensed, 20 in all" in capsys.readouterr().out
    few = read_bank(output)
    assert len(few) == 20
    assert (few.device_names, few.class_names) == (("a", "b"), read_bank(bank).class_names)
    assert int(few.entries["counts"].sum()) == 48  # the patches that the entries stand for
    assert main(["merge", str(output), str(bank), "--bank_size", "30", "--output", str(joined)]) == 0
    assert len(read_bank(joined)) == 30
    assert int(read_bank(joined).entries["counts"].sum()) == 96
    assert main(["condense", str(bank), "1", "--in_place"]) == 2
    assert "A bank of 1 entries cannot hold" in capsys.readouterr().err


@pytest.mark.parametrize("refit", [True, False])
def test_a_checkpoint_without_an_image_is_the_model_without_it(tiny_encoder: dict, tmp_path: Path, refit: bool) -> None:
    source = saved(make_model(tiny_encoder, ["a", "b"]), tmp_path / "model.ckpt")
    flags = [] if refit else ["--no_refit"]
    assert main(["remove", str(source), "--image", "a.png", *flags, "--output", str(tmp_path / "less.ckpt")]) == 0
    model = AOISSLRetrieval.load_from_checkpoint(tmp_path / "less.ckpt", weights_only=True).eval()
    assert model.describe()["entries_of_device"] == {"b": 24}
    expected = make_model(tiny_encoder, ["a", "b"])
    pictures = torch.rand(1, 3, *SIZE)
    before = expected.model.head.layers("first")[0].copy()
    assert expected.remove(image="a.png", refit=refit) == 24
    assert torch.equal(model(pictures).pred_mask, expected(pictures).pred_mask)
    assert np.array_equal(before, expected.model.head.layers("first")[0]) == (not refit)
    torch.testing.assert_close(model(pictures).anomaly_map, expected(pictures).anomaly_map)
    for name, array in expected.model.bank.pixels.arrays.items():
        assert np.array_equal(getattr(model.model.bank.pixels, name), array, equal_nan=name == "novelty"), name
    assert len(load_content(source)) == 48


def test_checkpoints_are_merged_and_condensed(tiny_encoder: dict, tmp_path: Path, bank: Path) -> None:
    small = saved(make_model(tiny_encoder, ["long name"], bank={"size": 30}), tmp_path / "small.ckpt")
    assert main(["merge", str(small), str(bank), "--output", str(tmp_path / "merged.ckpt")]) == 0
    content = load_content(tmp_path / "merged.ckpt")
    assert len(content) == 30  # condensed to the model's size of a bank
    assert int(content.entries["counts"].sum()) == 72
    assert set(content.device_names) == {"a", "b", "long name"}


def test_a_model_edits_its_bank(tiny_encoder: dict, tmp_path: Path, bank: Path) -> None:
    model = make_model(tiny_encoder, ["a"], bank={"size": None})
    model.merge(bank)
    assert model.describe()["entries"] == 72
    model.undo()
    model.merge(saved(make_model(tiny_encoder, ["b"]), tmp_path / "b.ckpt"))
    assert model.describe()["entries_of_device"] == {"a": 24, "b": 24}
    masks = torch.zeros(1, 40, 60, dtype=torch.uint8)
    with pytest.raises(ValueError, match="A mask has the index 7"):
        model.add(torch.rand(1, 3, 40, 60), masks + 7, ["c"])
    with pytest.raises(ValueError, match="do not belong together"):
        model.add(torch.rand(1, 3, 40, 61), masks, ["c"])
    fresh = AOISSLRetrieval(encoder={**tiny_encoder, "pretrained": False}, image_size=SIZE)
    with pytest.raises(ValueError, match="knows no classes yet"):
        fresh.add(torch.rand(1, 3, 40, 60), masks, ["c"])


def test_checkpoints_without_a_bank(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    with pytest.raises(BankFileError, match=r"model\.ckpt: the checkpoint does not exist"):
        load_content(path)
    path.write_bytes(b"none")
    with pytest.raises(BankFileError, match=r"model\.ckpt: cannot be read as a checkpoint"):
        load_content(path)
    torch.save({"state_dict": {}}, path)
    with pytest.raises(BankFileError, match="is no checkpoint of AOISSLRetrieval"):
        load_content(path)


def test_a_checkpoint_of_another_encoder_raises(tiny_encoder: dict, tmp_path: Path) -> None:
    source = saved(make_model(tiny_encoder, ["a"]), tmp_path / "model.ckpt")
    with pytest.raises(BankFileError, match=r"model\.ckpt: the bank was filled with the encoder"):
        load_content(source, "f" * 64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["describe", "bank.json"], "bank.json: a bank is in a bank file"),
        (["describe", "no.xml"], "no.xml: the model does not exist"),
        (["remove", "{bank}", "--device", "a", "--device=b", "--in_place"], "--device is given 2 times"),
        (["remove", "{bank}", "--device", "a"], "Say where the result goes"),
        (["remove", "{bank}", "--output", "x.xml"], "is written as .safetensors"),
        (["remove", "{bank}", "--device", "x", "--in_place"], r"no device 'x'. It has ['a', 'b']"),
        (["adapt", "{bank}", "i.png", "m.png", "d", "--in_place"], "only an exported model"),
        (["export", "{bank}", "x.bin"], "a bank file's name ends with .safetensors"),
    ],
)
def test_what_is_wrong_is_said(
    arguments: list[str], message: str, bank: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = bank.read_bytes()
    assert main([argument.format(bank=bank) for argument in arguments]) == 2
    assert message in capsys.readouterr().err
    assert bank.read_bytes() == before


def test_the_package_runs_it(bank: Path) -> None:
    command = [sys.executable, "-m", "anomalib_aoissl", "bank", "describe", str(bank)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "DEVICE  ENTRIES\na            24\nb            24" in result.stdout
