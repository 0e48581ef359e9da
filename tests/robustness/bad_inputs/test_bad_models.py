# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Exported models and checkpoints that are damaged, foreign or impossible: an error with file and remedy, on load."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rows import Row, table
from small_exports import (
    change_constant,
    checkpoint,
    copied,
    cut,
    exported,
    flipped,
    onnx,
    picture,
    renamed,
    rewritten,
    spoilt_checkpoint,
)

from anomalib_aoissl import AOISSLRetrieval, SegmentationOpenVINOInferencer
from anomalib_aoissl.deployment.graph.bank import METADATA_PATH, NotEditableError, read_metadata
from anomalib_aoissl.retrieval.memory.checkpoint_bank import load_content

pytest.importorskip("openvino")

Act = Callable[[Path], object]


# --- exported models ------------------------------------------------------------------------------------------------


def spoilt(spoil: Callable[[Path], object], suffix: str = ".xml") -> Act:
    """Open an exported model after one of its files was spoilt."""

    def act(folder: Path) -> object:
        path = copied(folder)
        spoil(path.with_suffix(suffix))
        return SegmentationOpenVINOInferencer(path)

    return act


def spoilt_onnx(spoil: Callable[[Path], object]) -> Act:
    def act(folder: Path) -> object:
        path = Path(shutil.copy(onnx(), folder / "model.onnx"))
        spoil(path)
        return SegmentationOpenVINOInferencer(path)

    return act


def with_constant(name: str, value: float) -> Act:
    def change(graph: Any) -> None:
        change_constant(graph, name, value)

    return lambda folder: rewritten(folder, change)


def with_metadata(change: Callable[[dict[str, Any]], Any]) -> Act:
    def rewrite(graph: Any) -> None:
        metadata = read_metadata(graph)
        metadata = change(metadata) or metadata
        graph.set_rt_info(metadata if isinstance(metadata, str) else json.dumps(metadata), METADATA_PATH)

    return lambda folder: rewritten(folder, rewrite)


def without_key(*keys: str) -> Callable[[dict[str, Any]], None]:
    def change(metadata: dict[str, Any]) -> None:
        part = metadata
        for key in keys[:-1]:
            part = part[key]
        del part[keys[-1]]

    return change


def opens(inferencer: Any) -> object:
    return inferencer.class_names


def windows_lines(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))


def weights_of_another(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-4096:] = content[-4096:][::-1]
    path.write_bytes(content)


CHANGED = r"model\.xml: cannot be read as a model \(its checksum is another.*Restore a copy"
DAMAGED = r"model\.xml: what the model says of itself is damaged"

MODELS = table(
    Row("bit of a weight", spoilt(flipped, ".bin"), CHANGED),
    Row("last bit of the weights", spoilt(lambda p: flipped(p, 1.0), ".bin"), CHANGED),
    Row("weights of another", spoilt(weights_of_another, ".bin"), CHANGED),
    Row("weights cut", spoilt(lambda p: cut(p, 0.99), ".bin"), CHANGED),
    Row("weights of 0 bytes", spoilt(lambda p: p.write_bytes(b""), ".bin"), CHANGED),
    Row(
        "weights missing",
        spoilt(Path.unlink, ".bin"),
        r"model\.bin: the weights of model\.xml are not there",
        FileNotFoundError,
    ),
    Row("letter of the graph", spoilt(lambda p: renamed(p, b"wire", b"wine")), CHANGED),
    Row("graph cut", spoilt(cut), r"model\.xml: cannot be read as a model"),
    Row("graph of 0 bytes", spoilt(lambda p: p.write_bytes(b"")), r"model\.xml: cannot be read as a model"),
    Row("graph of text", spoilt(lambda p: p.write_text("no model")), r"model\.xml: cannot be read as a model"),
    Row("graph of bytes", spoilt(lambda p: p.write_bytes(bytes(range(256)))), r"model\.xml: cannot be read as a"),
    Row("model missing", lambda f: SegmentationOpenVINOInferencer(f / "m.xml"), "does not exist", FileNotFoundError),
    Row("the .bin given", lambda f: SegmentationOpenVINOInferencer(copied(f).with_suffix(".bin")), "ends with .xml"),
    Row("a checkpoint given", lambda _: SegmentationOpenVINOInferencer(checkpoint()), "an exported model ends with"),
    Row("lines end as on Windows", lambda f: opens(spoilt(windows_lines)(f)), value=("background", "wire", "ball")),
    Row("ONNX with a bit changed", spoilt_onnx(flipped), r"model\.onnx: cannot be read as a model \(its checksum"),
    Row("ONNX cut", spoilt_onnx(cut), r"model\.onnx: cannot be read as a model"),
    Row("ONNX of 0 bytes", spoilt_onnx(lambda p: p.write_bytes(b"")), r"model\.onnx: cannot be read as a model"),
    Row("ONNX of text", spoilt_onnx(lambda p: p.write_text("none")), r"model\.onnx: cannot be read as a model"),
    Row("embedding NaN", with_constant("bank.embeddings", np.nan), "'bank.embeddings' holds NaN or infinity"),
    Row("embedding of length 3", with_constant("bank.embeddings", 3), r"model\.xml: .*an embedding of length"),
    Row("count below 0", with_constant("bank.counts", -1), r"model\.xml: .*counts down to -1", NotEditableError),
    Row("label beyond the classes", with_constant("bank.labels", 7), "labels up to 7, but 3 names", NotEditableError),
    Row("says nothing", with_metadata(lambda _: "{}"), "carries no class names"),
    Row("says no JSON", with_metadata(lambda _: "{class"), DAMAGED),
    Row("says a list", with_metadata(lambda _: "[1]"), DAMAGED),
    Row("names no classes", with_metadata(without_key("class_names")), "damaged|carries no class names"),
    Row("names one by a number", with_metadata(lambda m: {**m, "class_names": [1, 2, 3]}), "damaged|no class names"),
    Row("file format of text", with_metadata(lambda m: {**m, "file_format": "png"}), DAMAGED),
    Row("abstention of text", with_metadata(lambda m: {**m, "abstention": "never"}), DAMAGED),
    Row("no device names", with_metadata(without_key("bank", "device_names")), "description of its bank is damaged"),
    Row("no size of patches", with_metadata(without_key("bank", "patch_size")), "description of its bank is damaged"),
    Row("no head", with_metadata(without_key("bank", "head")), "description of its bank is damaged"),
)


@pytest.mark.parametrize("row", MODELS)
def test_exported_models(row: Row, tmp_path: Path) -> None:
    row.check(tmp_path)


def test_a_model_without_a_checksum_answers_as_with_it(tmp_path: Path) -> None:
    ours, theirs = SegmentationOpenVINOInferencer(exported()), rewritten(tmp_path, lambda _: None)
    assert b"aoissl sha256" in exported().read_bytes()
    assert b"aoissl sha256" not in (tmp_path / "model.xml").read_bytes()
    np.testing.assert_array_equal(ours.predict(picture()).novelty, theirs.predict(picture()).novelty)
    np.testing.assert_array_equal(
        SegmentationOpenVINOInferencer(onnx()).predict(picture()).class_map, ours.predict(picture()).class_map
    )


# --- checkpoints ----------------------------------------------------------------------------------------------------


def of_state(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        content["state_dict"][key].reshape(-1)[0] = value

    return change


def load(change: Callable[[dict[str, Any]], object]) -> Act:
    """Load the bank of a checkpoint that was changed; the model then raises too."""

    def act(folder: Path) -> object:
        path = spoilt_checkpoint(folder, change)
        with pytest.raises(ValueError, match=r"damaged|no checkpoint|NaN or infinity|no state_dict"):
            AOISSLRetrieval.load_from_checkpoint(path)
        return load_content(path)

    return act


def load_file_that(spoil: Callable[[Path], object]) -> Act:
    def act(folder: Path) -> object:
        path = Path(shutil.copy(checkpoint(), folder / "model.ckpt"))
        spoil(path)
        with pytest.raises(ValueError, match=r"model\.ckpt: cannot be read as a checkpoint"):
            AOISSLRetrieval.load_from_checkpoint(path)
        return load_content(path)

    return act


BANK, NAMES = "model.bank.", "model.bank._extra_state"
UNREADABLE = r"model\.ckpt: cannot be read as a checkpoint.*Restore a copy"

CHECKPOINTS = table(
    Row("checkpoint of 0 bytes", load_file_that(lambda p: p.write_bytes(b"")), UNREADABLE),
    Row("checkpoint of text", load_file_that(lambda p: p.write_text("none")), UNREADABLE),
    Row("checkpoint cut", load_file_that(cut), UNREADABLE),
    Row("bit of the checkpoint", load_file_that(flipped), UNREADABLE),
    Row("of another package", load(lambda c: c.update(state_dict={"net.w": torch.ones(1)})), "is no checkpoint of"),
    Row("without weights", load(lambda c: c.pop("state_dict")), "holds no state_dict of a model"),
    Row("without a bank", load(lambda c: c["state_dict"].pop(f"{BANK}labels")), "no checkpoint of AOISSLRetrieval"),
    Row("without names", load(lambda c: c["state_dict"][NAMES].pop("class_names")), "its memory bank is damaged"),
    Row("names are a list", load(lambda c: c["state_dict"].update({NAMES: [1]})), "its memory bank is damaged"),
    Row("embedding NaN", load(of_state(f"{BANK}embeddings", np.nan)), r"model\.ckpt: .*embeddings that are not finite"),
    Row("embedding of length 3", load(of_state(f"{BANK}embeddings", 3.0)), r"model\.ckpt: .*an embedding of length"),
    Row("label beyond the classes", load(of_state(f"{BANK}labels", 9)), "labels up to 9, but 3 names"),
    Row("device without a name", load(of_state(f"{BANK}device_ids", -2)), "device_ids up to 0, down to -2"),
    Row("weight infinite", load(of_state("model.encoder.vit.norm.weight", np.inf)), "norm.weight that are not finite"),
)


@pytest.mark.parametrize("row", CHECKPOINTS)
def test_checkpoints(row: Row, tmp_path: Path) -> None:
    row.check(tmp_path)
