# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What is done with models and banks: merging, condensing, learning, compiling, quantizing with what does not fit."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rows import Row, table
from small_exports import (
    bank,
    exported,
    picture,
)

from anomalib_aoissl import SegmentationOpenVINOInferencer
from anomalib_aoissl.bank.condensing import condensed
from anomalib_aoissl.bank.content import check_embeddings, labelled_image, merged
from anomalib_aoissl.bank.storage import read_bank, write_bank
from anomalib_aoissl.cli import bank as bank_command
from anomalib_aoissl.data.describing.file_format import FileFormat
from anomalib_aoissl.data.describing.mask_format import MaskFormat
from anomalib_aoissl.deployment.requests import with_defaults
from anomalib_aoissl.models.export.quantizing import check_compression
from anomalib_aoissl.retrieval.memory.memory_bank import MemoryBank

pytest.importorskip("openvino")

Act = Callable[[Path], object]


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
    Row("int8_ptq of one", lambda _: check_compression("int8_ptq", Data(1, 9), 0.01), r"has 1, .*Give 10 or more"),
    Row("int8_ptq of two", lambda _: check_compression("int8_ptq", Data(2, 0), 0.01), value=None),
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


SIZES = """
import ctypes, sys
import numpy as np
from anomalib_aoissl.deployment.inferencer import SegmentationOpenVINOInferencer

class Heap(ctypes.Structure):  # mallinfo2 of glibc
    _fields_ = [(name, ctypes.c_size_t) for name in "a b c d mapped f g used h i".split()]

libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Heap
inferencer, random, seen = SegmentationOpenVINOInferencer(sys.argv[1]), np.random.default_rng(0), []
for number in range(150):
    height, width = random.integers(64, 300, 2)
    inferencer.predict(np.zeros((height, width, 3), np.uint8))
    if number in {49, 149}:
        heap = libc.mallinfo2()
        seen.append((heap.used + heap.mapped) / 1e6)
print(seen[1] - seen[0])
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks glibc for the size of its heap")
def test_memory_does_not_grow_with_the_sizes_of_pictures() -> None:
    result = subprocess.run([sys.executable, "-c", SIZES, exported()], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert float(result.stdout) < 10  # MB; 45 where every size is kept
