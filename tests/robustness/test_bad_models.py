# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Banks, checkpoints and exported models that were changed, are of others, or hold what cannot be."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rows import Row, table
from safetensors.numpy import load_file, save_file
from small_exports import (
    bank,
    change_constant,
    checkpoint,
    copied,
    cut,
    exported,
    flipped,
    onnx,
    picture,
    rewritten,
    spoilt_bank,
    spoilt_checkpoint,
)

from anomalib_aoissl import AOISSLRetrieval, SegmentationOpenVINOInferencer
from anomalib_aoissl.bank.condensing import condensed
from anomalib_aoissl.bank.content import check_embeddings, labelled_image, merged
from anomalib_aoissl.bank.storage import METADATA_KEY, read_bank, write_bank
from anomalib_aoissl.cli import bank as bank_command
from anomalib_aoissl.data.file_format import FileFormat
from anomalib_aoissl.data.mask_format import MaskFormat
from anomalib_aoissl.deployment.exported_bank import METADATA_PATH, NotEditableError, read_metadata
from anomalib_aoissl.deployment.requests import with_defaults
from anomalib_aoissl.models.quantizing import check_compression
from anomalib_aoissl.retrieval.checkpoint_bank import load_content
from anomalib_aoissl.retrieval.memory_bank import MemoryBank

pytest.importorskip("openvino")

Act = Callable[[Path], object]


# --- bank files -----------------------------------------------------------------------------------------------------


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


def renamed(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))


def foreign_bank(path: Path) -> object:
    save_file({"weight": np.zeros(3)}, path)
    return read_bank(path)


@pytest.mark.parametrize("row", BANKS)
def test_bank_files(row: Row, tmp_path: Path) -> None:
    row.check(tmp_path)


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


# --- what is done with them -----------------------------------------------------------------------------------------


def memory_bank_of_nan(folder: Path) -> None:
    held = MemoryBank(4, (2, 2))
    embeddings = torch.rand(2, 4, 4)
    embeddings[1, 3, 2] = torch.nan
    held.add(embeddings, torch.zeros(2, 4, 4, dtype=torch.uint8), ["d", "d"], ["good", "bad"])


def merged_with(**fields: Any) -> Act:
    return lambda _: len(merged(bank(), replace(bank(), **fields)))


def merged_in_torch(folder: Path) -> None:
    own, spoilt_one = bank(), bank()
    spoilt_one.entries["counts"][0] = 0
    held = MemoryBank(32, (8, 8))
    held.take(own)
    held.merge(spoilt_one)


def condense_entries(patch_size: tuple[int, int] | None) -> list[int]:
    """Return which entries of a bank of 4 x 16 px are kept, whose class lies left or right."""
    generator = np.random.default_rng(0)
    labels = np.zeros((40, 4, 16), np.uint8)
    labels[::2, :, :8], labels[1::2, :, 8:] = 1, 1
    content = bank()
    entries = {name: array[:40] for name, array in content.entries.items()}
    entries["embeddings"] = np.repeat(generator.normal(size=(1, 32)), 40, axis=0).astype(np.float32)
    small = condensed(
        replace(content, entries={**entries, "labels": labels.reshape(40, 64)}, pixels=None), 2, patch_size
    )
    return sorted((small.entries["positions"] % 2).tolist())


def condensed_by_command(folder: Path) -> object:
    content = replace(bank(), patch_size=(4, 16))
    path = write_bank(content, folder / "bank.safetensors")
    assert bank_command.main(["condense", str(path), "20", "--in_place"]) == 0
    small = read_bank(path)
    expected = condensed(content, 20, (4, 16))
    np.testing.assert_array_equal(small.entries["positions"], expected.entries["positions"])
    assert not np.array_equal(expected.entries["positions"], condensed(content, 20, (8, 8)).entries["positions"])
    return small.patch_size


def learnt(masks: MaskFormat, paint: Callable[[np.ndarray], Image.Image]) -> Act:
    """Return how often each class is in the labels of an image that was learnt from a mask file."""

    def act(folder: Path) -> object:
        inferencer = SegmentationOpenVINOInferencer(exported())
        inferencer.file_format = FileFormat.from_dict(json.loads(json.dumps(FileFormat(masks=masks).to_dict())))
        mask = np.zeros((32, 48), np.uint8)
        mask[:8], mask[8:16], mask[16:24] = 1, 2, 255
        paint(mask).save(folder / "mask.png")
        Image.fromarray(picture()).resize((48, 32)).save(folder / "image.png")
        before = inferencer.bank["pixels_of_class"]
        inferencer.adapt(folder / "image.png", folder / "mask.png", device="new")
        after = inferencer.bank["pixels_of_class"]
        return [after[name] - before[name] for name in before]

    return act


COLOURS = {(0, 0, 0): 0, (255, 0, 0): 1, (0, 255, 0): 2, (9, 9, 9): 255}


def painted(mask: np.ndarray) -> Image.Image:
    table_ = np.zeros((256, 3), np.uint8)
    for colour, index in COLOURS.items():
        table_[index] = colour
    return Image.fromarray(table_[mask])


def ignoring(value: int) -> Callable[[np.ndarray], Image.Image]:
    return lambda mask: Image.fromarray(np.where(mask == 255, value, mask).astype(np.uint8))


class Data:
    """A datamodule with so many images of each split."""

    def __init__(self, val: int, test: int) -> None:
        self.val_data, self.test_data = [0] * val, [0] * test

    def setup(self, stage: str) -> None:
        assert stage == "fit"


F32 = {"INFERENCE_PRECISION_HINT": "f32"}
EACH = 8 * 48

USES = table(
    Row("array with NaN into a bank", memory_bank_of_nan, "bad: its embeddings are NaN or infinity"),
    Row("image of NaN on the line", lambda _: check_embeddings(np.full((2, 3), np.inf), "x.png"), "x.png: its emb"),
    Row(
        "labelled image of NaN",
        lambda _: labelled_image(
            np.full((1, 3), np.nan), np.zeros((1, 4)), device="d", image="i.png", class_names=["a"]
        ),
        "i.png: its embeddings are NaN",
    ),
    Row("patches of other sides merged", merged_with(patch_size=(4, 16)), r"patches of \(8, 8\) and \(4, 16\) px"),
    Row("patches of unknown sides merged", merged_with(patch_size=None), value=144),
    Row("damaged bank merged in torch", merged_in_torch, "The bank to take in is damaged .*counts down to 0"),
    Row("4x16 patches condensed", lambda _: condense_entries((4, 16)), value=[0, 1]),
    Row("4x16 patches condensed by the command", condensed_by_command, value=(4, 16)),
    Row("masks of indices", learnt(MaskFormat(), Image.fromarray), value=[EACH] * 3),
    Row("masks of colours", learnt(MaskFormat(colours=COLOURS), painted), value=[EACH] * 3),
    Row("masks that ignore 250", learnt(MaskFormat(250), ignoring(250)), value=[EACH] * 3),
    Row("masks that ignore 9", learnt(MaskFormat(9), ignoring(9)), value=[EACH] * 3),
    Row(
        "masks of merged classes",
        learnt(MaskFormat(classes=("background", "wire", "ball"), foreground=("ball",)), Image.fromarray),
        value=[2 * EACH, EACH, 0],
    ),
    Row("masks of unknown colours", learnt(MaskFormat(), painted), r"mask\.png: the mask is colour-coded"),
    Row("masks of an unknown value", learnt(MaskFormat(), ignoring(250)), r"mask\.png: the class index 250"),
    Row("hints beside the defaults", lambda _: with_defaults("GPU", {"A": 1}), value={**F32, "A": 1}),
    Row("no hints", lambda _: with_defaults("CPU", None), value={**F32, "CPU_RUNTIME_CACHE_CAPACITY": 0}),
    Row(
        "another precision",
        lambda _: with_defaults("GPU.1", {"INFERENCE_PRECISION_HINT": "bf16"}),
        value={"INFERENCE_PRECISION_HINT": "bf16"},
    ),
    Row("int8_ptq without data", lambda _: check_compression("int8_ptq", None, 0.01), "give --data"),
    Row("int8_ptq without val", lambda _: check_compression("INT8_PTQ", Data(0, 9), 0.01), "val_ratio above 0"),
    Row("int8_acq without test", lambda _: check_compression("int8_acq", Data(9, 0), 0.01), "test_ratio above 0"),
    Row("int8_acq may lose 2", lambda _: check_compression("int8_acq", Data(9, 9), 2), r"max_drop=2 must lie in \[0"),
    Row("fp16 without data", lambda _: check_compression("fp16", None, 0.01), value=None),
)


@pytest.mark.parametrize("row", USES)
def test_what_is_done_with_models(row: Row, tmp_path: Path) -> None:
    row.check(tmp_path)


def test_answers_that_are_no_numbers_are_no_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    inferencer = SegmentationOpenVINOInferencer(exported())
    run = inferencer._compiled

    def broken(images: np.ndarray) -> dict[str, np.ndarray]:
        outputs = {name: run(images)[name].copy() for name in ("pred_mask", "pred_score", "anomaly_map")}
        outputs["anomaly_map"][0, 0, 3, 4] = np.nan
        return outputs

    monkeypatch.setattr(inferencer, "_loaded", replace(inferencer._loaded, run=broken, abstention=None))
    with pytest.raises(ValueError, match="The model's answer is NaN or infinity, so there is no mask"):
        inferencer.predict(picture())
