# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Checkpoints that are damaged, foreign or impossible, and arguments against those of a checkpoint."""

import copy
import errno
import io
import logging
import math
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from anomalib.engine import Engine
from lightning.fabric.plugins import TorchCheckpointIO
from rows import Row, table

from anomalib_aoissl import AOISSLRetrieval, AOISSLSegmenter, SegmentationFolder
from anomalib_aoissl.encoder.vit import PatchEncoder
from anomalib_aoissl.plugin.options import flat
from anomalib_aoissl.pretraining import MAEPretraining
from anomalib_aoissl.retrieval.memory.checkpoint_bank import load_content

QUIET = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False, "logger": False}

pytestmark = pytest.mark.usefixtures("short_fits")

SAVED: dict[type, dict[str, Any]] = {}
"""A checkpoint's content of each model; not to be changed."""


@pytest.fixture(scope="module", autouse=True)
def _saved(tiny_encoder: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Save a model of each class: a bank of two images with abstention of 0.05 and k 12, and a segmenter."""
    from lightning.pytorch import Trainer

    folder = tmp_path_factory.mktemp("saved")
    common = {"encoder": {**tiny_encoder, "pretrained": False}, "image_size": (64, 96), "visualizer": False}
    retrieval = AOISSLRetrieval(**common, head=None, vote={"k": 12}, abstain=0.05).eval()
    retrieval.set_dataset(["background", "wire"], retrieval.file_format)
    masks = torch.zeros(2, 64, 96, dtype=torch.uint8)
    masks[:, :, 40:] = 1
    retrieval.add(torch.rand(2, 3, 64, 96), masks, ["a", "b"], ["a.png", "b.png"])
    segmenter = AOISSLSegmenter(**common, training={"learning_rate": 0.01, "budget": 3})
    segmenter.set_dataset(["background", "wire"], segmenter.file_format)
    segmenter.model.make_decoder(2)
    for model in (retrieval, segmenter):
        trainer = Trainer(**QUIET, barebones=False, enable_checkpointing=False, default_root_dir=folder)
        trainer.strategy.connect(model)
        model.trainer = trainer
        trainer.save_checkpoint(folder / "model.ckpt")
        SAVED[type(model)] = torch.load(folder / "model.ckpt", weights_only=True)


def save(path: Path, change: Callable[[dict[str, Any]], None] = lambda _: None, cls: type = AOISSLRetrieval) -> Path:
    """Write the checkpoint of a class with a change, and return the path."""
    content = copy.deepcopy(SAVED[cls])
    change(content)
    torch.save(content, path)
    return path


def bytes_of(change: Callable[[bytearray], None]) -> Callable[[Path], None]:
    """Return what writes a checkpoint whose bytes were changed."""

    def write(path: Path) -> None:
        content = bytearray(save(path).read_bytes())
        change(content)
        path.write_bytes(content)

    return write


def flip(content: bytearray, place: int) -> None:
    """Change one bit."""
    content[place] ^= 4


def middle_of_largest_record(content: bytes) -> int:
    """Return a place in what the file holds; records are padded, and a bit of the padding changes nothing."""
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        record = max(file.infolist(), key=lambda record: record.file_size)
    extra = int.from_bytes(content[record.header_offset + 28 : record.header_offset + 30], "little")
    return record.header_offset + 30 + len(record.filename) + extra + record.file_size // 2


def state(name: str, change: Callable[[torch.Tensor], Any]) -> Callable[[Path], None]:
    """Return what writes a checkpoint with a changed entry of its state dict."""

    def put(content: dict[str, Any]) -> None:
        value = content["state_dict"][name]
        content["state_dict"][name] = change(value)

    return lambda path: (save(path, put), None)[1]


def names(**changed: Any) -> Callable[[Path], None]:
    """Return what writes a checkpoint with changed names of its bank."""
    return state("model.bank._extra_state", lambda value: {**dict(value), **changed})


def hparams(**changed: Any) -> Callable[[Path], None]:
    """Return what writes a checkpoint with changed arguments."""
    return lambda path: (save(path, lambda content: content["hyper_parameters"].update(changed)), None)[1]


def filled(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return what puts a value at the first place of a tensor."""

    def change(tensor: torch.Tensor) -> torch.Tensor:
        tensor.view(-1)[0] = value
        return tensor

    return change


BAD: tuple[tuple[str, Callable[[Path], Any], str], ...] = (
    ("no file", lambda _: None, "the checkpoint does not exist"),
    ("a folder", Path.mkdir, "is a folder, no checkpoint"),
    ("0 bytes", Path.touch, "the file is empty"),
    ("text", lambda path: path.write_text("no checkpoint"), "no checkpoint, or cut off"),
    ("half a file", bytes_of(lambda content: content.__delitem__(slice(len(content) // 2, None))), "or cut off"),
    ("without its last byte", bytes_of(lambda content: content.pop()), "or cut off"),
    (
        "a flipped bit",
        bytes_of(lambda content: flip(content, middle_of_largest_record(content))),
        "have changed",
    ),
    ("a plain pickle", lambda path: path.write_bytes(pickle.dumps({"state_dict": {}})), "no checkpoint, or cut off"),
    ("code", lambda path: torch.save({"state_dict": {}, "code": Path.mkdir}, path), "cannot be read as a checkpoint"),
    ("a list", lambda path: torch.save([1], path), "holds no state_dict"),
    (
        "weights alone",
        lambda path: torch.save({"state_dict": {"weight": torch.ones(1)}}, path),
        "is no checkpoint of AOISSLRetrieval",
    ),
    ("another model", lambda path: save(path, cls=AOISSLSegmenter), "is no checkpoint of AOISSLRetrieval"),
    ("weights with NaN", state("model.encoder.vit.norm.weight", filled(math.nan)), "norm.weight that are not finite"),
    ("weights with infinity", state("model.encoder.vit.norm.bias", filled(math.inf)), "norm.bias that are not finite"),
    ("a bank with NaN", state("model.bank.embeddings", filled(math.nan)), "model.bank.embeddings that are not finite"),
    ("labels beyond the classes", state("model.bank.labels", filled(7)), "bank is damaged .labels up to 7, but 2"),
    ("devices beyond the names", state("model.bank.device_ids", filled(9)), "device_ids up to 9, but 2 names"),
    ("images below 0", state("model.bank.image_ids", filled(-1)), "image_ids up to"),
    ("a bank of fewer labels", state("model.bank.labels", lambda labels: labels[:-1]), "bank is damaged .entries of"),
    ("a bank without positions", state("model.bank.positions", lambda _: None), "bank is damaged"),
    ("a bank without names", state("model.bank._extra_state", lambda _: {}), "bank is damaged"),
    ("a bank of fewer classes", names(class_names=["background"]), "labels up to 1, but 1 names"),
    ("arguments out of range", hparams(vote={"k": -3}), "vote.k=-3 must be at least 1"),
    ("arguments of another type", hparams(abstain="x"), "abstain='x' must be a number"),
)


def loaded(write: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """Return an act that writes a checkpoint and loads the model."""

    def act(folder: Path) -> object:
        write(folder / "model.ckpt")
        return AOISSLRetrieval.load_from_checkpoint(folder / "model.ckpt")

    return act


def extended(write: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """Return an act that writes a checkpoint and takes its bank."""

    def act(folder: Path) -> object:
        write(folder / "model.ckpt")
        return load_content(folder / "model.ckpt")

    return act


@pytest.mark.parametrize(
    "row", table(*(Row(what, loaded(write), f"model.ckpt: .*{error}") for what, write, error in BAD))
)
def test_a_bad_checkpoint_raises_with_its_name(row: Row, tmp_path: Path) -> None:
    row.check(tmp_path)


@pytest.mark.parametrize(
    "row",
    table(
        *(
            Row(what, extended(write), f"model.ckpt: .*{error}")
            for what, write, error in BAD
            if what not in {"weights alone", "another model"} and not what.startswith("arguments")
        )
    ),
)
def test_the_bank_of_a_bad_checkpoint_raises_with_its_name(row: Row, tmp_path: Path) -> None:
    row.check(tmp_path)


@pytest.mark.parametrize(
    "what",
    ["0 bytes", "a flipped bit", "another model", "labels beyond the classes", "arguments out of range", "no file"],
)
def test_anomalib_rejects_a_bad_checkpoint_with_its_name(what: str, tmp_path: Path, drawn_folder: Path) -> None:
    write = next(row[1] for row in BAD if row[0] == what)
    write(tmp_path / "model.ckpt")
    engine = Engine(default_root_dir=tmp_path, **QUIET)
    data = SegmentationFolder(drawn_folder, num_workers=0)
    with pytest.raises((ValueError, FileNotFoundError), match=r"model\.ckpt"):  # Lightning names a missing file
        engine.test(AOISSLRetrieval(encoder={"pretrained": False}), datamodule=data, ckpt_path=tmp_path / "model.ckpt")


@pytest.mark.parametrize("model", [AOISSLRetrieval, AOISSLSegmenter])
def test_a_full_disk_names_the_checkpoint_that_training_writes(
    model: type, tiny_encoder: dict, drawn_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save_checkpoint(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(TorchCheckpointIO, "save_checkpoint", save_checkpoint)
    arguments = {"encoder": {**tiny_encoder, "pretrained": False}, "image_size": (64, 96), "visualizer": False}
    data = SegmentationFolder(drawn_folder, num_workers=0, val_ratio=0.25)
    with pytest.raises(OSError, match=r"The disk is full\. .*\.ckpt"):
        Engine(default_root_dir=tmp_path, max_steps=1, **QUIET).fit(model(**arguments), datamodule=data)


# --- what the user wrote ---------------------------------------------------------------------------------------------


def taken(cls: Any, names: tuple[str, ...], **written: Any) -> Callable[[Path], object]:
    """Return an act that writes arguments, loads a checkpoint, and returns the arguments that then hold."""

    def act(_: Path) -> object:
        model = cls(**written) if written else cls()
        model.on_load_checkpoint(copy.deepcopy(SAVED[cls]))
        values = flat(model.hparams, model.RULES)
        return [values[name] for name in names]

    return act


KEPT, TUNED = ("abstain", "vote.k"), ("training.learning_rate", "training.budget")


@pytest.mark.parametrize(
    "row",
    table(
        Row("nothing is written", taken(AOISSLRetrieval, KEPT), value=[0.05, 12]),
        Row("abstention is switched off", taken(AOISSLRetrieval, KEPT, abstain=None), value=[None, 12]),
        Row("the default is written", taken(AOISSLRetrieval, KEPT, vote={"k": 15}), value=[0.05, 15]),
        Row("another value is written", taken(AOISSLRetrieval, KEPT, abstain=0.2, vote={"k": 7}), value=[0.2, 7]),
        Row(
            "what the checkpoint has is written",
            taken(AOISSLRetrieval, ("image_size",), image_size=(64, 96)),
            value=[(64, 96)],
        ),
        Row(
            "the default is written of what the weights depend on",
            taken(AOISSLRetrieval, KEPT, image_size=(512, 512)),
            r"saved with image_size=\(64, 96\), but --model.image_size says \(512, 512\)",
        ),
        Row(
            "another head is written",
            taken(AOISSLRetrieval, KEPT, head="pixel"),
            "saved with head=None, but --model.head says pixel",
        ),
        Row("nothing is written, segmenter", taken(AOISSLSegmenter, TUNED), value=[0.01, 3]),
        Row(
            "the default is written, segmenter",
            taken(AOISSLSegmenter, TUNED, training={"learning_rate": 3e-4, "budget": None}),
            value=[3e-4, None],
        ),
    ),
)
def test_what_is_written_wins_and_the_rest_is_the_checkpoints(row: Row, tmp_path: Path) -> None:
    row.check(tmp_path)


def test_abstention_is_off_where_it_is_written_off(tmp_path: Path) -> None:
    path = save(tmp_path / "model.ckpt")
    assert AOISSLRetrieval.load_from_checkpoint(path).model.abstention.share == 0.05
    model = AOISSLRetrieval.load_from_checkpoint(path, abstain=None)
    assert model.model.abstention.share is None
    assert model.model.abstention.threshold is None
    assert model.written_arguments == {"abstain"}


def test_anomalibs_export_takes_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from anomalib.cli import AnomalibCLI

    path, taken = save(tmp_path / "model.ckpt"), []
    monkeypatch.setattr(AOISSLRetrieval, "to_torch", lambda self, **_: taken.append(self.hparams) or path)
    arguments = [
        "--model=AOISSLRetrieval",
        "--model.encoder.pretrained=false",
        "--model.abstain=null",
        "--export_type=torch",
    ]
    cli = AnomalibCLI(["export", *arguments, f"--ckpt_path={path}", f"--default_root_dir={tmp_path}"], run=False)
    cli._run_subcommand()
    model = AOISSLRetrieval(encoder={"pretrained": False}, abstain=None)
    Engine(default_root_dir=tmp_path).export(model, "torch", ckpt_path=path)
    assert [given["abstain"] for given in taken] == [None, None]
    assert [given["vote"]["k"] for given in taken] == [12, 12]


# --- pictures that do not fit ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [AOISSLRetrieval, AOISSLSegmenter])
@pytest.mark.parametrize("planes", [1, 4])
def test_other_planes_than_the_models_are_named(
    model: type, planes: int, tiny_encoder: dict, drawn_folder: Path, tmp_path: Path
) -> None:
    arguments = {"encoder": {**tiny_encoder, "pretrained": False}, "image_size": (64, 96)}
    data = SegmentationFolder(drawn_folder, num_workers=0)
    with pytest.raises(ValueError, match=rf"in_channels={planes}, but .* has 3 planes\. Set in_channels=3"):
        Engine(default_root_dir=tmp_path, max_steps=1, **QUIET).fit(
            model(**arguments, in_channels=planes), datamodule=data
        )


# --- pretraining -----------------------------------------------------------------------------------------------------


def damaged(kind: str, file: Path) -> None:
    """Damage a checkpoint."""
    content = file.read_bytes()
    if kind == "foreign":
        torch.save({"state_dict": {"a": torch.ones(1)}}, file)
    elif kind == "NaN":
        saved = torch.load(file, weights_only=True)
        next(iter(saved["state_dict"].values())).fill_(math.nan)
        torch.save(saved, file)
    else:
        file.write_bytes({"empty": b"", "cut": content[: len(content) // 2]}[kind])


class Stopped(MAEPretraining):
    """Breaks off in its third step."""

    def build_objective(self, vit: Any) -> Any:
        objective = super().build_objective(vit)

        def after_step(progress: Any) -> None:
            if progress.step > 2:
                raise InterruptedError

        objective.after_step = after_step
        return objective


def pretrained(cls: type, encoder: dict[str, Any], images: Path, cache: Path) -> dict[str, torch.Tensor]:
    """Return the weights of an encoder after four steps of pretraining, each with its checkpoint."""
    files = [(path,) for path in sorted((images / "images").glob("*_ch0.png"))[:2]]
    settings = {"max_epochs": 4, "batch_size": 2, "crops": {"size": 32}, "probe": {"every": 1}}
    callback = cls(**settings, decoder={"dims": 16, "heads": 2}, cache_dir=cache)
    made = PatchEncoder(encoder, image_size=(64, 96), pretrained=False)
    callback.pretrain(made, files, trainer_arguments={"accelerator": "cpu", "enable_progress_bar": False})
    return made.vit.state_dict()


@pytest.fixture(scope="module")
def runs(tiny_encoder: dict, drawn_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """Return the cache of a run that was broken off, and the weights of an unbroken one."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.raises(InterruptedError):
        pretrained(Stopped, tiny_encoder, drawn_folder, folder / "stopped")
    return folder / "stopped", pretrained(MAEPretraining, tiny_encoder, drawn_folder, folder / "unbroken")


@pytest.mark.parametrize(
    ("kind", "both"), [("empty", False), ("cut", False), ("foreign", False), ("NaN", False), ("cut", True)]
)
def test_a_damaged_checkpoint_of_pretraining_gives_way_to_the_one_before(
    kind: str,
    both: bool,
    runs: tuple[Path, Any],
    tiny_encoder: dict,
    drawn_folder: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    cache = shutil.copytree(runs[0], tmp_path / "cache")
    (partial,) = cache.glob("*.partial")
    assert sorted(path.name for path in partial.glob("*.ckpt")) == ["last.ckpt", "previous.ckpt"]
    for name in ("last.ckpt", "previous.ckpt") if both else ("last.ckpt",):
        damaged(kind, partial / name)
    with caplog.at_level(logging.INFO):
        weights = pretrained(MAEPretraining, tiny_encoder, drawn_folder, cache)
    assert f"damaged checkpoint: {partial / 'last.ckpt'}: " in caplog.text
    assert ("Pretraining starts over" if both else f"resumes from {partial / 'previous.ckpt'}") in caplog.text
    for name, tensor in runs[1].items():
        torch.testing.assert_close(weights[name], tensor, msg=name)
