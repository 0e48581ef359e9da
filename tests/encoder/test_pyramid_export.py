# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Models with the default encoder as OpenVINO graphs: torch's masks and novelty, and edits on the line."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anomalib.deploy import CompressionType
from editable_models import traced_once

from anomalib_aoissl import AOISSLRetrieval, SegmentationOpenVINOInferencer
from anomalib_aoissl.data.describing.file_format import FileFormat

pytest.importorskip("openvino")
pytestmark = pytest.mark.usefixtures("short_fits")

SIZE = (72, 88)  # multiples of 8, not of 16
NAMES = ["background", "dark", "bright"]


def pictures(count: int) -> torch.Tensor:
    """Return pictures of smooth blobs, [count, 3, 72, 88], at the model's size."""
    generator = torch.Generator().manual_seed(4)
    coarse = torch.rand(count, 3, 6, 7, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=SIZE, mode="bicubic").clamp(0, 1)


def masks_of(images: torch.Tensor) -> torch.Tensor:
    """Return three classes by brightness."""
    brightness = images.mean(dim=1)
    return ((brightness > 0.45).to(torch.uint8) + (brightness > 0.55)).to(torch.uint8)


@pytest.fixture(scope="module")
def model(short_fits: None) -> AOISSLRetrieval:
    """Return a model that has learnt two pictures, and whose exports share one graph."""
    model = AOISSLRetrieval(image_size=SIZE).eval()
    model.set_dataset(NAMES, FileFormat())
    images = pictures(2)
    model.add(images, masks_of(images), ["device"] * 2, ["a", "b"])
    return traced_once(model)


@pytest.fixture(scope="module")
def xml(model: AOISSLRetrieval, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model.to_openvino(tmp_path_factory.mktemp("export"))


def as_arrays(images: torch.Tensor) -> list[np.ndarray]:
    return [(image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8) for image in images]


def test_the_graph_gives_torchs_answers(model: AOISSLRetrieval, xml: Path) -> None:
    inferencer = SegmentationOpenVINOInferencer(xml, config={"INFERENCE_PRECISION_HINT": "f32"})
    for array in as_arrays(pictures(3)):
        expected = model(torch.from_numpy(array).permute(2, 0, 1)[None].float() / 255)
        result = inferencer.predict(array)
        assert (result.class_map == expected.pred_mask[0, 0].numpy()).mean() >= 0.999
        np.testing.assert_allclose(result.novelty, expected.anomaly_map[0, 0].detach().numpy(), atol=1e-4)


def test_the_line_learns_an_image(model: AOISSLRetrieval, xml: Path) -> None:
    inferencer = SegmentationOpenVINOInferencer(xml, config={"INFERENCE_PRECISION_HINT": "f32"})
    image = pictures(3)[2:]
    (array,) = as_arrays(image)
    before = inferencer.predict(array).novelty.max()
    entries = inferencer.bank["entries"]
    inferencer.adapt(array, masks_of(image)[0].numpy(), device="new")
    after = inferencer.predict(array)
    assert inferencer.bank["entries"] == entries + 9 * 11
    assert after.novelty.max() < 1e-3 < before  # it knows each of the patches


def test_8_bits_of_the_weights_keep_the_masks(model: AOISSLRetrieval, xml: Path, tmp_path: Path) -> None:
    pytest.importorskip("nncf")
    compressed: Any = model.to_openvino(tmp_path, compression_type=CompressionType.INT8)
    assert compressed.with_suffix(".bin").stat().st_size < xml.with_suffix(".bin").stat().st_size
    whole, small = (SegmentationOpenVINOInferencer(path) for path in (xml, compressed))
    for array in as_arrays(pictures(2)):
        assert (whole.predict(array).class_map == small.predict(array).class_map).mean() > 0.9
