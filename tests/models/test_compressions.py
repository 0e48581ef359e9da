# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Exports in 16 and 8 bits: the encoder is smaller, and the class map is that of the full model."""

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from editable_models import traced_once
from few_filters import FEW, filters_of
from test_export import NAMES, drawn_pictures
from torchmetrics.classification import MulticlassJaccardIndex

from anomalib_aoissl import AOISSLSegmenter, SegmentationFolder, Tiling
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
    model = AOISSLSegmenter(encoder={**tiny_encoder, "pretrained": False}, image_size=(64, 96)).eval()
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
        quantizing._warn_of_few(2)
    (message,) = caplog.messages
    assert "from 2 validation images, which may be too few" in message
    assert "--data.val_ratio" in message


SIDES = [(40, 64), (80, 64), (200, 320)] * 3
"""Of pictures that tiles of 40x64 px cut into 1, 2 and 25."""


class Pictures:
    """Pictures whose pixels say where they are: (their number, row, column)."""

    def __init__(self, sides: list[tuple[int, int]]) -> None:
        self.sides, self.read = sides, 0

    def __len__(self) -> int:
        return len(self.sides)

    def __getitem__(self, index: int) -> Any:
        self.read += 1
        places = np.indices(self.sides[index])
        return SimpleNamespace(image=np.stack([np.full(self.sides[index], index), *places]), gt_mask=places[0] % 5)


def places_of(pictures: Pictures, most: int | None) -> list[tuple[int, int, int]]:
    """Return picture, row and column of each tile that ranges are taken from."""
    found = []
    for batch in quantizing.TiledImages(pictures, Tiling((40, 64), 0), most):  # type: ignore[arg-type]
        number, rows, columns = batch.image[0]
        assert batch.image.shape == (1, 3, 40, 64)
        assert np.array_equal(batch.gt_mask[0], rows % 5)
        assert np.unique(number).size == 1
        found.append((int(number[0, 0]), int(rows[0, 0]), int(columns[0, 0])))
    return found


def test_ranges_are_those_of_all_pictures() -> None:
    """Of 84 tiles 42: all of the small pictures, and what these leave of their shares goes to the large ones."""
    found = places_of(Pictures(SIDES), 42)
    assert len(places_of(Pictures(SIDES), None)) == 84
    assert len(set(found)) == len(found) == 42
    assert Counter(number for number, *_ in found) == {0: 1, 1: 2, 2: 11, 3: 1, 4: 2, 5: 11, 6: 1, 7: 2, 8: 11}
    for large in (2, 5, 8):  # no half of the picture has most of the tiles
        assert 4 <= sum(row < 100 for number, row, _ in found if number == large) <= 7
        assert 4 <= sum(column < 160 for number, _, column in found if number == large) <= 7
    assert found == places_of(Pictures(SIDES), 42)


def test_nncf_is_given_those_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 20 pictures with 25 tiles each: NNCF alone would take 300 of the first twelve."""
    ops = pytest.importorskip("openvino").opset13
    given: list[int] = []

    def quantize(graph: Any, calibration: Any, subset_size: int, **_: Any) -> Any:
        given.extend(int(image[0, 0, 0, 0]) for image in calibration.get_inference_data())
        assert subset_size == len(given)
        return graph

    monkeypatch.setattr(nncf, "quantize", quantize)
    image = ops.parameter([-1, 3, -1, -1], np.float32)
    tokens = ops.convolution(image, np.ones((2, 3, 1, 1), np.float32), [1, 1], [0, 0], [0, 0], [1, 1])
    tokens.output(0).set_names({"tokens"})
    graph = pytest.importorskip("openvino").Model([tokens], [image])
    loader = SimpleNamespace(dataset=Pictures([(200, 320)] * 20))
    data: Any = SimpleNamespace(val_dataloader=lambda: loader)
    quantizing.compress(graph, "int8_ptq", data, 0.01, Tiling((40, 64), 0))
    assert Counter(given) == dict.fromkeys(range(20), 15)


def test_of_more_pictures_than_tiles_each_shows_another_part() -> None:
    pictures = Pictures([(200, 320)] * 60)
    found = places_of(pictures, 20)
    assert [number for number, *_ in found] == list(range(2, 60, 3))
    assert pictures.read == 20  # others are not even read
    assert len({(row, column) for _, row, column in found}) > 12


def test_a_graph_without_an_encoder() -> None:
    ops = pytest.importorskip("openvino").opset13
    image = ops.parameter([-1, 3, -1, -1], np.float32)
    graph = pytest.importorskip("openvino").Model([ops.relu(image)], [image])
    with pytest.raises(ValueError, match=r"encoder was not found.*Use FP16"):
        quantizing.compress(graph, "int8", None, 0.01)
