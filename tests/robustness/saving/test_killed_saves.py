# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What is left when a command is ended at any moment, or the disk is full: the old file whole, or the new one."""

import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_exports import bank, checkpoint, copied, exported, onnx, traced

from anomalib_aoissl import SegmentationOpenVINOInferencer
from anomalib_aoissl.bank.storage import read_bank, write_bank
from anomalib_aoissl.cli import bank as bank_command
from anomalib_aoissl.deployment.files.file_pair import read_pair
from anomalib_aoissl.deployment.files.model_file import core, read_model, save_model
from anomalib_aoissl.deployment.graph.bank import bank_of

openvino = pytest.importorskip("openvino")

KILLING = Path(__file__).with_name("killing.py")


def killed(command: str, folder: Path) -> list[Path]:
    """Return the folders that a command left, in the order of the moments that it was ended at; the last is whole."""
    return all_killed({command: folder})[command]


def all_killed(folders: dict[str, Path]) -> dict[str, list[Path]]:
    """Return what `killed` does for each of several commands and its folder: one process imports what they need."""
    arguments = [str(argument) for pair in folders.items() for argument in pair]
    result = subprocess.run([sys.executable, KILLING, *arguments], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    ends = map(int, result.stdout.splitlines()[-len(folders) :])
    return {
        command: [folder.with_name(f"{folder.name}-{n + 1}") for n in range(end + 1)]
        for (command, folder), end in zip(folders.items(), ends, strict=True)
    }


def images(path: Path) -> int:
    """Return how many images a model holds that is read as by any program, and by ours."""
    stock, ours = bank_of(core().read_model(path)), bank_of(read_model(path))
    np.testing.assert_array_equal(stock.entries["embeddings"], ours.entries["embeddings"])
    return len(ours.image_names)


@pytest.mark.parametrize("new_is", ["smaller", "larger"])
def test_a_saved_pair(tmp_path: Path, new_is: str) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    one = SegmentationOpenVINOInferencer(exported())
    one.remove(image="1-0")
    three = read_model(exported())
    old, new = (three, one._model) if new_is == "smaller" else (one._model, three)
    openvino.serialize(old, folder / "model.xml", folder / "model.bin")  # as an older export, without a checksum
    openvino.serialize(new, folder / "new.xml", folder / "new.bin")
    left = killed("pair", folder)
    found = [images(state / "model.xml") for state in left]
    before, after = (3, 2) if new_is == "smaller" else (2, 3)
    turn = found.index(after)
    assert found == [before] * turn + [after] * (len(found) - turn)
    assert turn >= 10
    assert len(found) - turn >= 5
    assert (left[-1] / "model.bin").read_bytes() == (folder / "new.bin").read_bytes()
    assert sorted(path.name for path in left[-1].iterdir()) == ["model.bin", "model.xml", "new.bin", "new.xml"]


@pytest.mark.parametrize("stray", [".xml", ".bin", None])
def test_a_pair_where_there_was_none(tmp_path: Path, stray: str | None) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    for suffix in (".xml", ".bin"):
        shutil.copy(exported().with_suffix(suffix), folder / f"new{suffix}")
    (folder / "new.xml").write_bytes(re.sub(rb"<!-- aoissl .*-->\n", b"", (folder / "new.xml").read_bytes()))
    if stray:
        (folder / f"model{stray}").write_bytes(b"what is left of another model")
    for state in killed("pair", folder)[:-1]:
        both = (state / "model.xml").is_file() and (state / "model.bin").is_file()
        assert not both or images(state / "model.xml") == 3
    assert images(state.with_name(f"{folder.name}-{len(list(tmp_path.iterdir())) - 1}") / "model.xml") == 3


def test_commands_that_edit_in_place(tmp_path: Path) -> None:
    for command, make in (("bank", lambda f: write_bank(bank(), f / "bank.safetensors")), ("model", copied)):
        folder = tmp_path / command
        folder.mkdir()
        name = make(folder).name
        left = killed(command, folder)
        found = [len(bank_command.bank_in(state / name).image_names) for state in left]
        assert set(found) == {2, 3}
        assert found == sorted(found, reverse=True)


@pytest.fixture(scope="module")
def exports_left(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """Return what exports over old ones left, each in the order of the moments that it was ended at."""
    one = SegmentationOpenVINOInferencer(exported())
    whole = read_model(exported())
    one.remove(image="1-0")
    folders = {}
    for command in ("openvino", "openvino_and_model_api"):
        folder = folders[command] = tmp_path_factory.mktemp(command) / "run"
        path = folder / "weights" / "openvino" / "model.xml"
        path.parent.mkdir(parents=True)
        for target in (path, path.with_name("model_model_api.xml")):  # to tell them apart, the same model twice
            save_model(whole, target)
        path.with_suffix(".gate.json").write_text("of the old model")
        save_model(one._model, folder / "new.xml")
        shutil.copy(onnx(), folder / "new.onnx")
    folder = folders["onnx"] = tmp_path_factory.mktemp("onnx") / "run"
    path = folder / "weights" / "onnx" / "model.onnx"
    path.parent.mkdir(parents=True)
    for target in (path, folder / "new.onnx"):
        shutil.copy(onnx(), target)
    path.with_suffix(".gate.json").write_text("of the old model")
    return all_killed(folders)


@pytest.mark.parametrize("command", ["openvino", "openvino_and_model_api"])
def test_an_export_over_an_old_one(exports_left: dict[str, list[Path]], command: str) -> None:
    """Old or new, whole; what lies beside it is of the same model, or gone."""
    places = [state / "weights" / "openvino" for state in exports_left[command]]
    found = [images(place / "model.xml") for place in places]
    turn = found.index(2)
    assert found == [3] * turn + [2] * (len(found) - turn)
    assert min(turn, len(found) - turn) >= 5
    outputs = len(read_model(exported()).outputs)
    for place, number in zip(places, found, strict=True):
        if (place / "model_model_api.xml").is_file():
            graph = core().read_model(place / "model_model_api.xml")
            assert len(graph.outputs) == (1 if number == 2 else outputs)
        assert number == 3 or not (place / "model.gate.json").exists()
    whole = {"model.bin", "model.xml"}
    whole |= {"model_model_api.bin", "model_model_api.xml"} if command != "openvino" else set()
    assert {file.name for file in places[-1].iterdir()} == whole
    assert {file.name for file in places[0].iterdir()} >= {"model_model_api.xml", "model.gate.json"}


def test_an_onnx_export_over_an_old_one(exports_left: dict[str, list[Path]]) -> None:
    old = onnx().read_bytes()
    states = [state / "weights" / "onnx" / "model.onnx" for state in exports_left["onnx"]]
    found = [state.read_bytes() == old for state in states]
    turn = found.index(False)
    assert found == [True] * turn + [False] * (len(found) - turn)
    for state, is_old in zip(states, found, strict=True):
        assert len(core().read_model(state).outputs) > 1  # opens
        read_model(state)
        assert is_old or not state.with_suffix(".gate.json").exists()


def test_a_model_for_the_model_api_goes_with_an_edit(tmp_path: Path) -> None:
    """It was made of the model before the edit."""
    path = copied(tmp_path)
    for suffix in (".xml", ".bin"):
        shutil.copy(path.with_suffix(suffix), tmp_path / f"model_model_api{suffix}")
    assert bank_command.main(["remove", str(path), "--image", "1-0", "--in_place"]) == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.bin", "model.xml"]


def test_an_export_over_an_old_one_that_fails_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "weights" / "openvino"
    folder.mkdir(parents=True)
    path = copied(folder)
    before = read_pair(path)

    def save(*_: object, **__: object) -> None:
        msg = "No space left on device"
        raise OSError(msg)

    monkeypatch.setattr(openvino, "serialize", save)
    with pytest.raises(OSError, match="disk is full"):
        traced().to_openvino(tmp_path)
    assert read_pair(path) == before
    assert sorted(file.name for file in path.parent.iterdir()) == ["model.bin", "model.xml"]


@pytest.mark.parametrize("kind", ["model.xml", "bank.safetensors", "model.ckpt"])
def test_a_full_disk(tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    source = {
        "model.xml": lambda: copied(tmp_path),
        "bank.safetensors": lambda: write_bank(bank(), tmp_path / "bank.safetensors"),
        "model.ckpt": lambda: Path(shutil.copy(checkpoint(), tmp_path / "model.ckpt")),
    }[kind]()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, limits[1]))  # no file may be longer, as on a disk that is full
    try:
        assert bank_command.main(["condense", str(source), "20", "--in_place"]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert kind in capfd.readouterr().err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_long_names_and_shares_without_modes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def chmod(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "chmod", chmod)
    name = "n" * (255 - len(".safetensors")) + ".safetensors"
    assert len(read_bank(write_bank(bank(), tmp_path / name))) == 72
    saved = SegmentationOpenVINOInferencer(exported()).save(tmp_path / ("m" * 251 + ".xml"))
    assert images(saved) == 3


def test_a_model_that_is_read_while_it_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, read = copied(tmp_path), Path.read_bytes
    swapped: list[bool] = []
    inferencer = SegmentationOpenVINOInferencer(exported())
    inferencer.remove(image="1-0")

    def between(self: Path) -> bytes:
        content = read(self)
        if self == path and not swapped:
            swapped.append(True)
            inferencer.save(path)  # after the .xml was read, and before the .bin is
        return content

    monkeypatch.setattr(Path, "read_bytes", between)
    assert len(bank_of(read_model(path)).image_names) == 2
