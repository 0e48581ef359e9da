# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""An exported model's bank is edited without torch and answers as torch does with the same entries."""

import copy
import logging
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.deploy import CompressionType, OpenVINOInferencer
from editable_models import CLASSES, array_of, bank_file, check_equal, labelled, traced_once
from editable_models import make_model as make_any_model
from PIL import Image

from anomalib_aoissl import AOISSLRetrieval
from anomalib_aoissl.bank.content import REQUIRED, BankArrays
from anomalib_aoissl.bank.storage import read_bank
from anomalib_aoissl.deployment.files.model_file import core
from anomalib_aoissl.deployment.graph.bank import bank_of
from anomalib_aoissl.deployment.inferencer import SegmentationOpenVINOInferencer

openvino = pytest.importorskip("openvino")

make_model = partial(make_any_model, head=None)


def sized(model: AOISSLRetrieval, entries: int) -> AOISSLRetrieval:
    """Return the model with a bank of random entries in place of its own."""
    generator = torch.Generator().manual_seed(entries)
    embeddings = torch.nn.functional.normalize(torch.randn(entries, 32, generator=generator), dim=-1)
    labels = torch.randint(0, 3, (entries, 64), generator=generator).to(torch.uint8)
    ids = torch.zeros(entries, dtype=torch.int32)
    counts = torch.randint(1, 9, (entries,), generator=generator).to(torch.int32)
    columns = (column.numpy() for column in (embeddings, labels, ids, ids, ids, counts))
    content = BankArrays(dict(zip(REQUIRED, columns, strict=True)), tuple(CLASSES), ("d",), ("i",))
    other = make_model(1, seed=5)
    other.model.bank.take(content)
    return other


def test_the_constants_keep_their_names_and_their_values(model: AOISSLRetrieval, xml: Path) -> None:
    graph = core().read_model(xml)
    named = {node.get_friendly_name(): node.data for node in graph.get_ops() if node.get_type_name() == "Constant"}
    for name in ("embeddings", "labels", "counts"):
        np.testing.assert_array_equal(named[f"bank.{name}"], getattr(model.model.bank, name).numpy())
    bank = bank_of(graph)
    for name in ("device_ids", "image_ids", "positions"):
        np.testing.assert_array_equal(bank.entries[name], getattr(model.model.bank, name).numpy())
    assert bank.encoder_hash == model.model.bank.encoder_hash != ""
    assert [output.get_any_name() for output in graph.outputs] == ["pred_score", "anomaly_map", "pred_mask"]


@pytest.mark.parametrize("entries", [10, 500, 40000])
def test_a_bank_of_any_number_of_entries_takes_its_place(
    inferencer: SegmentationOpenVINOInferencer, model: AOISSLRetrieval, tmp_path: Path, entries: int
) -> None:
    other = sized(model, entries)  # fewer entries than k = 30, more, and more than one chunk of 16,384
    inferencer.replace_bank(bank_file(other, tmp_path))
    assert inferencer.bank["entries"] == entries
    check_equal(inferencer, other)


@pytest.fixture(scope="module")
def whole_model() -> AOISSLRetrieval:
    """Return a model of other pictures, with nothing condensed; its exports share one graph; not to be changed."""
    return traced_once(make_model(2, seed=7))


def test_swapping_gives_what_a_fresh_export_gives(
    inferencer: SegmentationOpenVINOInferencer,
    whole_model: AOISSLRetrieval,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = copy.deepcopy(whole_model)
    fresh = core().compile_model(other.to_openvino(tmp_path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    inferencer.replace_bank(bank_file(other, tmp_path))
    pictures = labelled(2, seed=98)[0].numpy()
    expected, answer = fresh(pictures), inferencer._compiled(pictures)
    np.testing.assert_array_equal(answer["pred_mask"], expected["pred_mask"])
    np.testing.assert_allclose(answer["anomaly_map"], expected["anomaly_map"], atol=1e-6)

    saved = inferencer.save(tmp_path / "saved" / "model.xml")
    monkeypatch.chdir(tmp_path)  # anomalib's inferencer makes a cache folder where it runs
    stock = OpenVINOInferencer(saved, device="CPU", config={"INFERENCE_PRECISION_HINT": "f32"})
    np.testing.assert_allclose(
        stock.predict(pictures[0].transpose(1, 2, 0)).pred_score, expected["pred_score"][:1], 1e-4
    )
    onnx = SegmentationOpenVINOInferencer(other.to_onnx(tmp_path))  # ONNX keeps the constants' names as well
    assert onnx.bank == SegmentationOpenVINOInferencer(saved).bank
    onnx.remove(image="7-0")
    other.remove(image="7-0")
    check_equal(onnx, other)


def test_adapting_equals_torch_with_the_same_entries(
    inferencer: SegmentationOpenVINOInferencer, model: AOISSLRetrieval, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pictures, masks = labelled(2, seed=3)
    masks[0, :, 35:] = 255
    other = make_model(1, seed=5)
    other.model.bank.take(model.model.bank.content())
    other.add(pictures, masks, ["new", "new"], ["first", "second"])
    Image.fromarray(array_of(pictures[1])).save(tmp_path / "second.png")
    Image.fromarray(masks[1].numpy()).save(tmp_path / "mask.png")
    added = inferencer.adapt(array_of(pictures[0]), masks[0].numpy().astype(np.int64), device="new", name="first")
    assert added == 4 * 3  # half of the patches are ignored as a whole
    with caplog.at_level(logging.WARNING):
        inferencer.adapt(tmp_path / "second.png", tmp_path / "mask.png", device="new", name="second")
    assert "106 entries now, more than the 70" in caplog.text
    ours, theirs = bank_of(inferencer._model), other.model.bank
    np.testing.assert_allclose(ours.entries["embeddings"], theirs.embeddings.numpy(), atol=1e-5)
    np.testing.assert_array_equal(ours.entries["labels"], theirs.labels.numpy())
    np.testing.assert_array_equal(ours.entries["positions"], theirs.positions.numpy())
    check_equal(inferencer, other)
    assert inferencer.predict(array_of(pictures[1])).score < 1e-5  # what was learnt is known

    assert inferencer.bank["entries_of_device"] == {"old": 70, "new": 36}
    assert inferencer.remove(device="new", image="first") == 12
    assert inferencer.remove(device="new") == 24
    check_equal(inferencer, model)


@pytest.mark.parametrize(
    ("seen", "masked", "said"),
    [
        (57, 0, "The mask of u1 is background everywhere, but the model sees parts, mostly ball, on 2 % of its pixels"),
        (56, 0, ""),  # 2 % of 40x70 px
        (57, 1, ""),  # the user names a part: a mask that was drawn
        (57, 255, ""),  # where the model sees parts, the mask says nothing
    ],
)
def test_a_mask_of_background_alone_is_doubted_where_the_model_sees_parts(
    seen: int,
    masked: int,
    said: str,
    inferencer: SegmentationOpenVINOInferencer,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class_map, mask = np.zeros((40, 70), np.uint8), np.zeros((40, 70), np.uint8)
    class_map.flat[:seen] = 2
    class_map.flat[:20] = 1
    mask.flat[:seen] = masked
    answer = inferencer.predict(np.zeros((40, 70, 3), np.uint8))
    monkeypatch.setattr(inferencer, "predict", lambda *_: replace(answer, class_map=class_map))
    image = np.random.default_rng(0).integers(0, 256, (40, 70, 3), dtype=np.uint8)
    with caplog.at_level(logging.WARNING):
        added = inferencer.adapt(image, mask, device="new", name="u1", bank_size=60)
    assert added > 0
    assert inferencer.bank["entries_of_device"]["new"] > 0
    assert [record.getMessage().startswith(said) for record in caplog.records] == [True] * bool(said)


def test_a_bank_size_is_kept_to_on_the_line(
    inferencer: SegmentationOpenVINOInferencer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pictures, masks = labelled(1, seed=3)
    with caplog.at_level(logging.WARNING):
        added = inferencer.adapt(array_of(pictures[0]), masks[0].numpy(), device="new", bank_size=50)
        inferencer.extend_bank(bank_file(make_model(2, seed=7), tmp_path), bank_size=60)
    assert not caplog.records
    assert added == 24
    assert inferencer.bank["entries"] == 60
    assert set(inferencer.bank["entries_of_device"]) == {"old", "new"}
    other = make_model(1, seed=5)
    other.model.bank.take(bank_of(inferencer._model))
    check_equal(inferencer, other)
    before = inferencer.bank
    with pytest.raises(ValueError, match="A bank of 1 entries cannot hold"):
        inferencer.extend_bank(bank_file(make_model(2, seed=8), tmp_path), bank_size=1)
    assert inferencer.bank == before


def test_a_new_class_is_learnt(
    inferencer: SegmentationOpenVINOInferencer, model: AOISSLRetrieval, tmp_path: Path
) -> None:
    names = [*CLASSES, "crack"]
    other = make_model(1, seed=5, class_names=names)
    other.model.bank.take(model.model.bank.content())
    other.model.bank.class_names = list(names)
    pictures, masks = labelled(1, seed=3, classes=4)
    masks[:, 20:] = 3
    other.add(pictures, masks, ["new"], ["first"])
    # the mask's own order of classes is mapped by name
    table = np.full(256, 255, np.uint8)
    table[:4] = [0, 3, 2, 1]
    shuffled = ["background", "crack", "ball", "wire"]
    inferencer.adapt(array_of(pictures[0]), table[masks[0].numpy()], device="new", name="first", class_names=shuffled)
    assert inferencer.class_names == tuple(names)
    assert 3 in inferencer.predict(array_of(pictures[0])).class_map
    check_equal(inferencer, other)
    again = SegmentationOpenVINOInferencer(inferencer.save(tmp_path / "saved.xml"))
    assert again.class_names == tuple(names)
    check_equal(again, other)


def test_extending_maps_classes_by_name_and_raises_for_others(
    inferencer: SegmentationOpenVINOInferencer, model: AOISSLRetrieval, tmp_path: Path
) -> None:
    other = make_model(1, seed=4, class_names=["background", "ball", "wire"])
    both = make_model(1, seed=5)
    both.model.bank.take(model.model.bank.content())
    both.merge(other.model.bank)
    inferencer.extend_bank(bank_file(other, tmp_path))
    check_equal(inferencer, both)
    before = inferencer.bank
    unknown = bank_file(make_model(1, seed=4, class_names=["background", "dirt"]), tmp_path)
    with pytest.raises(ValueError, match=r"\['background', 'wire', 'ball'\] here.*\['dirt'\] cannot be mapped"):
        inferencer.extend_bank(unknown)
    assert inferencer.bank == before
    inferencer.replace_bank(unknown, new_classes=True)
    assert inferencer.class_names == ("background", "wire", "ball", "dirt")


def answers(inferencer: SegmentationOpenVINOInferencer) -> tuple[np.ndarray, np.ndarray]:
    """Return masks and novelty of two images."""
    result = inferencer._compiled(labelled(2, seed=99)[0].numpy())
    return result["pred_mask"], result["anomaly_map"]


def check_alike(
    inferencer: SegmentationOpenVINOInferencer, fresh: SegmentationOpenVINOInferencer, tolerance: float = 1e-5
) -> None:
    """Compare the answers of two exported models."""
    (masks, novelty), (expected, expected_novelty) = answers(inferencer), answers(fresh)
    assert (masks == expected).mean() >= (0.999 if tolerance < 1e-4 else 0.99)
    np.testing.assert_allclose(novelty, expected_novelty, atol=tolerance)


def test_edits_of_a_model_in_half_precision_give_what_a_fresh_export_gives(
    model: AOISSLRetrieval, whole_model: AOISSLRetrieval, tmp_path: Path
) -> None:
    def half(source: AOISSLRetrieval, name: str) -> SegmentationOpenVINOInferencer:
        path = source.to_openvino(tmp_path / name, compression_type=CompressionType.FP16)
        return SegmentationOpenVINOInferencer(path)

    other = copy.deepcopy(whole_model)
    base = half(model, "base")
    edited = SegmentationOpenVINOInferencer(tmp_path / "base" / "weights" / "openvino" / "model.xml")
    edited.extend_bank(bank_file(other, tmp_path))
    assert bank_of(edited._model).entries["embeddings"].dtype == np.float16
    assert not np.array_equal(answers(edited)[1], answers(base)[1])
    for image in ("7-0", "7-1"):
        edited.remove(image=image)
    check_alike(edited, base)
    edited.replace_bank(bank_file(other, tmp_path))
    check_alike(edited, half(other, "other"))
    pictures, masks = labelled(1, seed=3)
    edited.adapt(array_of(pictures[0]), masks[0].numpy(), device="new", name="first")
    other.add(pictures, masks, ["new"], ["first"])
    del other._onnx_model  # it is traced again
    check_alike(edited, half(other, "more"), tolerance=2e-3)  # embedded by weights of half precision
    assert edited.predict(array_of(pictures[0])).score < 2e-3
    again = SegmentationOpenVINOInferencer(edited.save(tmp_path / "saved.xml"))
    check_alike(again, edited)


def test_a_save_that_fails_leaves_both_files(
    inferencer: SegmentationOpenVINOInferencer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = inferencer.save(tmp_path / "model.xml")
    before = [path.with_suffix(suffix).read_bytes() for suffix in (".xml", ".bin")]
    inferencer.remove(image="1-0")

    def broken(_: object, structure: str, weights: str) -> None:
        Path(structure).write_text("half")
        msg = "disk full"
        raise OSError(msg)

    monkeypatch.setattr(openvino, "serialize", broken)
    with pytest.raises(OSError, match="disk full"):
        inferencer.save(path)
    assert [path.with_suffix(suffix).read_bytes() for suffix in (".xml", ".bin")] == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.bin", "model.xml"]


def test_nothing_of_it_imports_torch(xml: Path, tmp_path: Path) -> None:
    script = f"""
import sys
import numpy as np
from anomalib_aoissl.deployment.inferencer import SegmentationOpenVINOInferencer
from anomalib_aoissl.cli import bank as bank_command
inferencer = SegmentationOpenVINOInferencer({str(xml)!r})
inferencer.adapt(np.zeros((40, 70, 3), np.uint8), np.ones((40, 70), np.uint8), device="new")
inferencer.save_bank({str(tmp_path / "bank.safetensors")!r})
inferencer.extend_bank({str(tmp_path / "bank.safetensors")!r})
model = inferencer.save({str(tmp_path / "model.xml")!r})
assert bank_command.main(["describe", str(model)]) == 0
assert bank_command.main(["remove", str(model), "--device", "old", "--in_place"]) == 0
print("loaded:", [name for name in ("torch", "anomalib", "lightning", "timm") if name in sys.modules])
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "loaded: []"
    assert len(read_bank(tmp_path / "bank.safetensors")) == 94


def test_models_that_come_and_go_leave_the_stack_for_signals_whole(xml: Path) -> None:
    script = f"""
import ctypes, gc
from anomalib_aoissl.deployment.inferencer import SegmentationOpenVINOInferencer
class Stack(ctypes.Structure):
    _fields_ = [("place", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]
def place():
    gc.collect()
    stack = Stack()
    assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack)) == 0
    return stack.place
first = SegmentationOpenVINOInferencer({str(xml)!r})
places = [place()]
second = SegmentationOpenVINOInferencer({str(xml)!r})
second.remove(image="1-0")
del first
places.append(place())
del second
places.append(place())
print(len(set(places)))
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.stdout == "1\n", result.stderr  # else memory that OpenVINO has freed
