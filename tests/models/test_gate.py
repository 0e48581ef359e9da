# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The gate sees an export that answers otherwise, says what it saw, and writes nothing then."""

import json
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_export import NAMES, SIZE, drawn_pictures
from torchmetrics.classification import MulticlassJaccardIndex

from anomalib_aoissl import AOISSLRetrieval, AOISSLSegmenter
from anomalib_aoissl.data.finding.rarest import rarest_part
from anomalib_aoissl.deployment.files.model_file import core, read_model, save_model
from anomalib_aoissl.deployment.gate import (
    LIMITS,
    GateError,
    Limits,
    Sample,
    class_pairs,
    judge,
    mean_iou,
)
from anomalib_aoissl.deployment.graph.bank import read_metadata
from anomalib_aoissl.deployment.inferencer import SegmentationOpenVINOInferencer
from anomalib_aoissl.deployment.runners import NamedRunner, Runner, inferencer_runner, onnx_runner, openvino_runner
from anomalib_aoissl.models.export import gating
from anomalib_aoissl.models.export.gating import drawn_pictures as gate_pictures
from anomalib_aoissl.models.export.gating import torch_runner
from anomalib_aoissl.plugin.export.options import exporting

openvino = pytest.importorskip("openvino")
ops = openvino.opset13
pytestmark = pytest.mark.usefixtures("short_fits", "all_filters")

LOOSE = Limits(0.0)


# --- the comparison, on arrays ----------------------------------------------------------------------------------------


def answers(mask: np.ndarray, novelty: float = 0.1) -> Runner:
    """Return a runner that gives a mask ``[h, w]`` for each picture, and one novelty."""

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        masks = np.broadcast_to(mask, (len(images), 1, *mask.shape))
        return {
            "pred_mask": masks,
            "anomaly_map": np.full(masks.shape, novelty, np.float32),
            "pred_score": np.full(len(images), novelty, np.float32),
        }

    return run


def random_mask(*size: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 4, size).astype(np.uint8)


PICTURES = [np.zeros((3, 8, 9), np.float32)] * 2


def test_what_is_not_compressed_has_limits_of_its_own() -> None:
    mask = random_mask(10, 10)
    runners = {"torch": answers(mask), "onnx": answers(mask, 0.105), "ir": answers(mask, 0.2)}
    strict, wide = (judge(runners, Sample(PICTURES, "here"), LOOSE, "fp16", Limits(0.0, by)) for by in (1e-3, 1e-2))
    assert [bool(run.faults) for run in strict.runs.values()] == [False, True, False]
    assert wide.passed


def test_equal_pixels_novelty_and_report() -> None:
    mask = random_mask(10, 10)
    other = mask.copy()
    other[0, :7] ^= 1
    report = judge({"torch": answers(mask), "ir": answers(other, 0.13)}, Sample(PICTURES, "here"), LOOSE, "fp16")
    run = report.runs["ir"]
    assert run.equal_pixels == run.worst_picture == pytest.approx(0.93)
    assert run.novelty_difference == pytest.approx(0.03, abs=1e-6)
    assert np.isfinite(run.latency_ms)
    content = json.loads(json.dumps(report.to_dict()))
    assert content["passed"] is True
    assert content["pictures"] == 2
    assert content["compression"] == "fp16"
    assert content["runs"]["ir"]["equal_pixels"] == pytest.approx(0.93)
    assert "93.00% of the pixels equal" in report.summary()


def test_the_result_names_the_runtimes() -> None:
    named = NamedRunner(answers(random_mask(10, 10)), "Other Runtime 1.2")
    report = judge({"torch": named, "onnx": named, "ir": answers(random_mask(10, 10))}, Sample(PICTURES, "here"), LOOSE)
    assert [run["runtime"] for run in report.to_dict()["runs"].values()] == ["Other Runtime 1.2"] * 2 + [""]
    assert report.summary().startswith("onnx (Other Runtime 1.2) 100.00% of the pixels equal")
    assert "; ir 100.00%" in report.summary()


@pytest.mark.parametrize(
    ("runner", "fault"),
    [
        (answers(random_mask(10, 10).T), r"18\.00% of the pixels are equal, 99\.90% are asked"),
        (answers(random_mask(10, 10)[:, :9]), r"pred_mask of images \[1, 3, 8, 9\] is \[1, 1, 10, 9\]"),
        (answers(random_mask(10, 10), 0.1003), r"novelty differs by up to 0\.0003, 0\.0001 is allowed"),
        (answers(random_mask(10, 10), float("nan")), "novelty differs by up to inf"),
    ],
)
def test_faults(runner: Runner, fault: str) -> None:
    report = judge({"torch": answers(random_mask(10, 10)), "ir": runner}, Sample(PICTURES, "here"), LIMITS[""])
    assert not report.passed
    with pytest.raises(GateError, match=rf"on 2 pictures of here\. ir: .*{fault}.*--gate off"):
        report.check()


def test_mean_iou_decides_where_there_are_masks() -> None:
    truth, torch_mask, other = random_mask(10, 10), random_mask(10, 10), random_mask(10, 10)
    truth[0] = 255  # ignored
    torch_mask[5] = 0
    other[5:8] = 0
    runners = {"torch": answers(torch_mask), "openvino": answers(other)}
    sample = Sample(PICTURES, "here", [truth, truth])
    metric = MulticlassJaccardIndex(4, average="macro", ignore_index=255)
    expected = [float(metric(torch.from_numpy(m), torch.from_numpy(truth))) for m in (torch_mask, other)]
    report = judge(runners, sample, Limits(1.0, None, 0.01), "int8_ptq")
    assert [run.mean_iou for run in report.runs.values()] == pytest.approx(expected)
    assert not report.passed
    assert judge(runners, sample, Limits(1.0, None, expected[0] - expected[1] + 1e-6), "int8_ptq").passed


def test_mean_iou_of_a_larger_mask() -> None:
    truth = random_mask(6, 8)
    predicted = truth[::2, ::2]  # each pixel stands for 2x2 of the mask
    enlarged = predicted.repeat(2, axis=0).repeat(2, axis=1)
    metric = MulticlassJaccardIndex(4, average="macro")
    assert mean_iou(class_pairs(truth, predicted)) == pytest.approx(
        float(metric(torch.from_numpy(enlarged), torch.from_numpy(truth)))
    )


def test_drawn_pictures_have_the_models_planes() -> None:
    pictures = gate_pictures(2, 4)
    assert [picture.shape for picture in pictures] == [(4, 240, 320)] * 2
    assert all(0 <= picture.min() < 0.2 and 0.6 < picture.max() <= 1 for picture in pictures)
    assert not np.array_equal(pictures[0], pictures[1])


# --- graphs -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(traced: Any) -> AOISSLRetrieval:
    return traced.model


@pytest.fixture(scope="module")
def xml(traced: Any) -> Path:
    return traced.xml


def before_input(change: Callable[[Any], Any]) -> Callable[[Any], None]:
    """Return a mutation that changes what the graph sees of its images."""

    def mutate(graph: Any) -> None:
        image = graph.get_parameters()[0]
        readers = list(image.output(0).get_target_inputs())
        changed = change(image)
        for reader in readers:
            reader.replace_source_output(changed.output(0))

    return mutate


def after_tensor(name: str, change: Callable[[Any], Any]) -> Callable[[Any], None]:
    """Return a mutation that changes what the graph reads at a named tensor."""

    def mutate(graph: Any) -> None:
        nodes = [node for node in graph.get_ordered_ops() if node.get_type_name() != "Result"]  # has the name too
        ports = {n: port for node in nodes for port in node.outputs() for n in port.get_names()}
        readers = list(ports[name].get_target_inputs())
        changed = change(ports[name])
        for reader in readers:
            reader.replace_source_output(changed.output(0))

    return mutate


def in_half_precision(values: Any) -> Any:
    """Return values with the 11 digits of a float of 16 bits, by Veltkamp's splitting: OpenVINO drops converts."""
    high = ops.multiply(values, np.float32(2**13 + 1))
    return ops.subtract(high, ops.subtract(high, values))


def fixed_batch(graph: Any) -> None:
    graph.reshape([1, 3, -1, -1])


MUTATIONS = {
    "no division by 255": before_input(lambda image: ops.multiply(image, np.float32(255))),
    "blue first": before_input(lambda image: ops.gather(image, np.array([2, 1, 0]), np.int64(1))),
    "fixed batch": fixed_batch,
    "transposed mask": after_tensor("pred_mask", lambda mask: ops.transpose(mask, np.array([0, 1, 3, 2]))),
    "search in f16": after_tensor("similarities", in_half_precision),
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_mutated_graph_is_caught(model: AOISSLRetrieval, xml: Path, mutation: str) -> None:
    graph = read_model(xml)
    sample = Sample([picture.numpy() for picture in drawn_pictures(2)], "drawn")
    runners = {"torch": torch_runner(model), "openvino": openvino_runner(graph)}
    if mutation == next(iter(MUTATIONS)):
        assert judge(runners, sample, LIMITS[""]).passed  # as it is
    MUTATIONS[mutation](graph)
    graph.validate_nodes_and_infer_types()
    report = judge({**runners, "openvino": openvino_runner(graph)}, sample, LIMITS[""])
    assert not report.passed
    with pytest.raises(GateError, match="openvino: "):
        report.check()


@pytest.mark.parametrize("installed", [True, False])
def test_an_onnx_file_names_the_runtime_that_read_it(
    model: AOISSLRetrieval, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: bool
) -> None:
    """Without ONNX Runtime it is OpenVINO's reader, which must not pass for ONNX Runtime."""
    path, here = model.to_onnx(tmp_path), f"OpenVINO {openvino.__version__.split('-')[0]}"
    assert inferencer_runner(path).runtime == f"{here}'s reader of ONNX"  # which a model with tiles is asked by
    if installed:
        pytest.importorskip("onnxruntime")
        runner, runtime = onnx_runner(path), f"ONNX Runtime {version('onnxruntime')}"
    else:
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
        runner, runtime = onnx_runner(path), f"{here}'s reader of ONNX"
    assert runner.runtime == runtime
    assert runner(drawn_pictures(1).numpy())["pred_mask"].shape == (1, 1, *SIZE)


def test_an_export_carries_its_gate(model: AOISSLRetrieval, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with exporting(2), caplog.at_level("INFO", "anomalib_aoissl"):
        path = model.to_openvino(tmp_path)
    beside = json.loads((path.parent / "model.gate.json").read_text())
    assert read_metadata(read_model(path))["gate"] == beside
    assert set(beside["runs"]) == {"torch", "onnx", "openvino"}
    assert beside["passed"] is True
    assert beside["runs"]["openvino"]["equal_pixels"] >= 0.999
    assert beside["runs"]["torch"]["runtime"] == f"torch {torch.__version__}"
    assert beside["runs"]["openvino"]["runtime"] == f"OpenVINO {openvino.__version__.split('-')[0]}"
    assert any("Gate passed: onnx (" in said and "; openvino (OpenVINO 2" in said for said in caplog.messages)
    assert len(caplog.messages) <= 10
    inferencer = SegmentationOpenVINOInferencer(path)
    inferencer.remove(image="image0", refit=False)
    inferencer.save(path)
    assert "gate" not in read_metadata(read_model(path))  # it was of another bank
    assert not (path.parent / "model.gate.json").exists()
    with exporting("off"):
        model.to_openvino(tmp_path)
    assert not (path.parent / "model.gate.json").exists()
    assert "gate" not in read_metadata(read_model(path))


def test_other_exports_carry_theirs(model: AOISSLRetrieval, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    with exporting(1):
        path, torch_path = model.to_onnx(tmp_path), model.to_torch(tmp_path)
    properties = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert json.loads(properties["aoissl"])["gate"] == json.loads((path.parent / "model.gate.json").read_text())
    content = json.loads((torch_path.parent / "model.gate.json").read_text())
    assert content["runs"]["torch file"]["equal_pixels"] == 1
    assert content["source"].startswith("the drawn set WireBond")
    assert onnx_runner(path)(drawn_pictures(1).numpy())["pred_mask"].shape == (1, 1, *SIZE)


def test_a_failed_gate_writes_nothing(model: AOISSLRetrieval, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(module: Any) -> Runner:
        return answers(np.zeros(SIZE, np.uint8))

    monkeypatch.setattr(gating, "torch_runner", wrong)
    with exporting(1), pytest.raises(GateError, match=r"openvino: .*Nothing was written"):
        model.to_openvino(tmp_path)
    assert not list(tmp_path.rglob("*.xml")) + list(tmp_path.rglob("*.json"))


def test_data_of_the_export(model: AOISSLRetrieval, drawn_folder: Path) -> None:
    from anomalib_aoissl import SegmentationFolder

    data = SegmentationFolder(drawn_folder, num_workers=0)
    sample = gating.pictures_to_compare(data, 1, tuple(NAMES))
    assert len(sample.images) == 1
    assert sample.images[0].shape == (3, 64, 96)
    assert not sample.masks  # of other classes
    sample = gating.pictures_to_compare(data, 30, tuple(data.test_data.class_names))
    assert [mask.shape for mask in sample.masks] == [(64, 96)] * len(data.test_data)
    assert "(test)" in sample.source


@pytest.mark.parametrize("compression", ["", "fp16", "int8", "int8_ptq", "int8_acq"])
def test_a_model_without_a_bank_is_judged_by_its_pixels(model: AOISSLRetrieval, compression: str) -> None:
    """Its map is 1 - the largest probability: where two classes are as likely, 16 bits change it by several points."""
    segmenter = AOISSLSegmenter(encoder=model.hparams["encoder"], image_size=SIZE)
    with exporting("off"):
        limits = gating.Gate.of(segmenter, None, compression).limits
        assert limits.equal_pixels == LIMITS[compression].equal_pixels
        assert limits.novelty == (None if compression else 0.01)
        assert gating.Gate.of(model, None, compression).limits.novelty == LIMITS[compression].novelty


def test_of_large_pictures_in_tiles_a_part_is_compared(drawn_folder: Path, tiny_encoder: dict) -> None:
    """A part of four tiles, which shows the picture's rarest class, with its own mask; the result says so."""
    from anomalib_aoissl import SegmentationFolder, Tiling

    data = SegmentationFolder(drawn_folder, num_workers=0)
    tiling = Tiling((32, 40), 8)
    module = AOISSLRetrieval(encoder={**tiny_encoder, "pretrained": False}, tiling=tiling)
    with exporting(2, datamodule=data):
        module.class_names = tuple(SegmentationFolder(drawn_folder).class_names)
        sample = gating.Gate.of(module).sample
    assert sample is not None
    assert sample.source.endswith("(test), parts of 40x50 px (height x width)")
    assert len(tiling.grid((40, 50))) == 4
    for item, part, mask in zip((data.test_data[0], data.test_data[1]), sample.images, sample.masks, strict=True):
        windows = np.lib.stride_tricks.sliding_window_view(np.asarray(item.image), (40, 50), (1, 2))
        ((row, column),) = np.argwhere((windows == part[:, None, None]).all(axis=(0, 3, 4)))
        truth = np.asarray(item.gt_mask)
        assert np.array_equal(truth[row : row + 40, column : column + 50], mask)
        values, counts = np.unique(truth[truth != 255], return_counts=True)
        assert values[counts.argmin()] in mask
    whole = gating.pictures_to_compare(data, 2, (), (64, 96))
    assert (whole.images[0].shape, whole.source[-6:]) == ((3, 64, 96), "(test)")
    low = gating.pictures_to_compare(data, 2, (), (40, 200))
    assert (low.images[0].shape, low.source[-6:]) == ((3, 40, 96), "width)")


@pytest.mark.parametrize(
    ("pixel", "most", "rows", "columns"),
    [
        ((5, 90), (20, 30), (0, 20), (70, 100)),
        ((50, 50), (20, 30), (40, 60), (35, 65)),
        ((50, 50), (200, 30), (0, 200), (35, 65)),
        (None, (20, 30), (30, 50), (35, 65)),
    ],
)
def test_the_part_lies_around_the_rarest_class(
    pixel: tuple[int, int] | None, most: tuple[int, int], rows: tuple[int, int], columns: tuple[int, int]
) -> None:
    mask = None
    if pixel is not None:
        mask = np.zeros((80, 100), np.uint8)
        mask[:9], mask[pixel], mask[0, 0] = 1, 2, 255
    assert rarest_part((80, 100), mask, most) == (slice(*rows), slice(*columns))


def test_pictures_of_other_planes_than_the_models(drawn_folder: Path) -> None:
    from anomalib_aoissl import SegmentationFolder

    data = SegmentationFolder(drawn_folder, num_workers=0)
    module = AOISSLRetrieval({"architecture": "vit_tiny_patch16_224", "pretrained": False}, image_size=64)
    with exporting(1, datamodule=data):
        assert gating.Gate.of(module).sample is not None
    module.hparams["in_channels"] = 4
    with exporting(1, datamodule=data), pytest.raises(ValueError, match=r"in_channels=4, but a picture of .* has 3 pl"):
        gating.Gate.of(module)


def test_pictures_without_masks_are_compared_without(drawn_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from anomalib_aoissl import SegmentationFolder
    from anomalib_aoissl.data.dataset import SegmentationDataset

    data = SegmentationFolder(drawn_folder, num_workers=0)
    monkeypatch.setattr(SegmentationDataset, "_mask", lambda *_: None)
    data.setup("fit")
    sample = gating.pictures_to_compare(data, 2, tuple(data.test_data.class_names))
    assert len(sample.images) == 2
    assert not sample.masks


@pytest.mark.parametrize("gate", [0, -1, "1.5", "on", ""])
def test_a_wrong_gate(gate: Any) -> None:
    with pytest.raises(ValueError, match='must be a whole number of pictures, 1 or more, or "off"'), exporting(gate):
        pass


# --- precision --------------------------------------------------------------------------------------------------------


def test_nodes_ask_for_full_precision(xml: Path, tmp_path: Path) -> None:
    """OpenVINO itself reads the marks: they come back in its own classes, and keep half precision from an input."""
    graph = core().read_model(xml)
    nodes = [node for node in graph.get_ops() if node.get_type_name() not in {"Constant", "Parameter", "Result"}]
    sizes = {"i32", "i64"}  # what is converted from others is stored weights
    nodes = [n for n in nodes if n.get_type_name() != "Convert" or n.get_input_element_type(0).get_type_name() in sizes]
    assert len(nodes) > 100
    assert [node for node in nodes if "DisablePrecisionConversion_0" not in node.get_rt_info()] == []
    again = save_model(graph, tmp_path / "again.xml").read_bytes()
    assert again.count(b"DisablePrecisionConversion") == len(nodes)
