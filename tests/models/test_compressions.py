# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Exports in 16 and 8 bits: the encoder is smaller, and the class map is that of the full model."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from editable_models import traced_once
from few_filters import FEW, filters_of
from test_export import NAMES, drawn_pictures
from torchmetrics.classification import MulticlassJaccardIndex

from anomalib_aoissl import AOISSLSegmenter, SegmentationFolder
from anomalib_aoissl.data.describing.file_format import FileFormat
from anomalib_aoissl.deployment.files.model_file import read_model
from anomalib_aoissl.deployment.runners import openvino_runner
from anomalib_aoissl.models.export import quantizing

pytest.importorskip("openvino")
nncf = pytest.importorskip("nncf")
pytestmark = pytest.mark.usefixtures("short_fits", "all_filters")

sys.path.append(str(Path(__file__).parents[1] / "segmenter"))
from segmenter_runs import fill_head, wake  # noqa: E402


def segmenter(tiny_encoder: dict) -> Any:
    """Return a model whose head and decoder are random numbers."""
    model = AOISSLSegmenter(encoder=tiny_encoder, pretrained=False, image_size=(64, 96)).eval()
    model.set_dataset(NAMES, FileFormat())
    model.model.make_decoder(len(NAMES))
    fill_head(model.model, len(NAMES))
    wake(model.model)
    return model


@pytest.fixture(scope="module", params=["AOISSLRetrieval", "AOISSLSegmenter"])
def model(request: pytest.FixtureRequest, traced: Any, tiny_encoder: dict) -> Iterator[Any]:
    if request.param == "AOISSLRetrieval":
        yield traced.model
    else:
        with filters_of(FEW):  # the other model has all of them
            yield traced_once(segmenter(tiny_encoder))


@pytest.fixture(scope="module")
def full(model: Any, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """Return the class maps of the export that is not compressed."""
    return answers(model.to_openvino(tmp_path_factory.mktemp("full")))["pred_mask"]


@pytest.fixture(scope="module")
def data(drawn_folder: Path) -> SegmentationFolder:
    return SegmentationFolder(drawn_folder, num_workers=0, val_ratio=0.25, test_ratio=0.25)


def answers(path: Path) -> dict[str, np.ndarray]:
    return dict(openvino_runner(read_model(path))(drawn_pictures(3).numpy()))


@pytest.mark.parametrize(("compression", "equal"), [("fp16", 0.999), ("int8", 0.97), ("int8_ptq", 0.95)])
def test_the_class_map_stays(
    model: Any, full: np.ndarray, data: SegmentationFolder, tmp_path: Path, compression: str, equal: float
) -> None:
    path = model.to_openvino(tmp_path, compression_type=compression, datamodule=data)
    assert (answers(path)["pred_mask"] == full).mean() >= equal
    graph = read_model(path)
    weights = [node for node in graph.get_ops() if node.get_type_name() == "Constant" and node.data.ndim > 1]
    small = {"fp16": {"f16"}, "int8": {"i8", "u8"}, "int8_ptq": {"i8", "u8"}}[compression]
    assert [node for node in weights if node.get_element_type().get_type_name() in small]
    if compression != "fp16":  # image filters, head and decoder convolve in 32 bits
        for node in graph.get_ops():
            if node.get_type_name() == "GroupConvolution":
                kinds = {port.get_node().get_type_name() for port in node.input_values()}
                assert not kinds & {"FakeQuantize", "Convert"}
    quantized = [node for node in graph.get_ops() if node.get_type_name() == "FakeQuantize"]
    assert bool(quantized) == (compression == "int8_ptq")


def test_acq_keeps_the_mean_iou(
    model: Any, data: SegmentationFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def control(graph: Any, calibration: Any, validation: Any, measure: Any, **options: Any) -> Any:
        asked.update(options, measured=measure(openvino_runner(graph), validation.get_data()))
        return nncf.quantize(graph, calibration, **{k: v for k, v in options.items() if k != "max_drop"})

    monkeypatch.setattr(nncf, "quantize_with_accuracy_control", control)
    model.to_openvino(tmp_path, compression_type="int8_acq", datamodule=data, max_drop=0.02)
    assert asked["max_drop"] == 0.02
    metric = MulticlassJaccardIndex(255, average="none", ignore_index=255)
    for batch in data.test_dataloader():
        with torch.no_grad():
            predicted = model(batch.image).pred_mask[:, 0].float()[:, None]
        size = batch.gt_mask.shape[-2:]
        metric.update(torch.nn.functional.interpolate(predicted, size=size)[:, 0].long(), batch.gt_mask.long())
    cells = metric.confmat
    present = (cells.sum(0) + cells.sum(1)) > 0
    assert asked["measured"] == pytest.approx(float(metric.compute()[present].mean()), abs=2e-3)


def test_few_images_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING"):
        quantizing._warn_of_few(10)
        quantizing._warn_of_few(1)
    (message,) = caplog.messages
    assert "from 1 validation image, which may be too few" in message
    assert "--data.val_ratio" in message


def test_a_graph_without_an_encoder() -> None:
    ops = pytest.importorskip("openvino").opset13
    image = ops.parameter([-1, 3, -1, -1], np.float32)
    graph = pytest.importorskip("openvino").Model([ops.relu(image)], [image])
    with pytest.raises(ValueError, match=r"encoder was not found.*Use FP16"):
        quantizing.compress(graph, "int8", None, 0.01)
