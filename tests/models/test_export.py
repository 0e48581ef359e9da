# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The exported graph gives torch's masks and novelty for any batch and image size, on real images where they are."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anomalib.deploy import CompressionType, OpenVINOInferencer, TorchInferencer
from PIL import Image

from anomalib_aoissl import AOISSLRetrieval, SegmentationOpenVINOInferencer
from anomalib_aoissl.data.describing.file_format import FileFormat
from anomalib_aoissl.data.reading import read_image, read_mask
from anomalib_aoissl.deployment.files.model_file import core

openvino = pytest.importorskip("openvino")
pytestmark = pytest.mark.usefixtures("short_fits", "all_filters")

SIZE = (96, 128)
NAMES = ["background", "bond_pad", "gold_other", "sensor", "sensor_gap", "wire"]
REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "wirebond_hgcal"


def trained(tiny_encoder: dict, pictures: torch.Tensor, masks: torch.Tensor, **arguments: Any) -> AOISSLRetrieval:
    """Return a model that has learnt the pictures."""
    sizes = {"image_size": SIZE, "in_channels": pictures.shape[1]}
    model = AOISSLRetrieval(encoder={**tiny_encoder, "pretrained": False}, **sizes, **arguments).eval()
    model.set_dataset(NAMES, FileFormat())
    names = [f"image{index}" for index in range(len(pictures))]
    model.add(pictures, masks, ["device"] * len(pictures), names)
    return model


def drawn_pictures(count: int, channels: int = 3) -> torch.Tensor:
    """Return pictures with structure at several scales, [count, channels, 75, 140]."""
    generator = torch.Generator().manual_seed(9)
    coarse = torch.rand(count, channels, 5, 7, generator=generator)
    fine = torch.rand(count, channels, 75, 140, generator=generator)
    return 0.7 * torch.nn.functional.interpolate(coarse, size=(75, 140), mode="bilinear") + 0.3 * fine


def drawn_masks(pictures: torch.Tensor) -> torch.Tensor:
    """Return masks of the pictures that follow their brightness, so that there is something to learn."""
    brightness = pictures.mean(dim=1)
    order = brightness.flatten(1).argsort(dim=1).argsort(dim=1).reshape(brightness.shape)
    return (order * len(NAMES) // order[0].numel()).to(torch.uint8)


@pytest.fixture(scope="module")
def model(traced: Any) -> AOISSLRetrieval:
    assert traced.model.model.has_fitted_head
    return traced.model


@pytest.fixture(scope="module")
def xml(traced: Any) -> Path:
    return traced.xml


def compiled(path: Path) -> Any:
    return core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def check_parity(model: AOISSLRetrieval, network: Any, images: torch.Tensor) -> None:
    expected, result = model(images), network(images.numpy())
    assert result["pred_mask"].shape == (len(images), 1, *SIZE)
    assert (result["pred_mask"] == expected.pred_mask.numpy()).mean() >= 0.999
    np.testing.assert_allclose(result["anomaly_map"], expected.anomaly_map.numpy(), rtol=0, atol=2e-6)
    np.testing.assert_allclose(result["pred_score"], expected.pred_score.numpy(), rtol=0, atol=2e-6)


def test_ir_equals_torch_for_any_batch_and_size(model: AOISSLRetrieval, xml: Path) -> None:
    network = compiled(xml)
    check_parity(model, network, drawn_pictures(1))
    check_parity(model, network, drawn_pictures(4))
    check_parity(model, network, drawn_pictures(2)[..., :70, :90])
    check_parity(model, network, torch.rand(1, 3, *SIZE))
    assert {next(iter(output.names)) for output in network.outputs} == {"pred_mask", "anomaly_map", "pred_score"}


def test_a_condensed_bank_of_half_precision(tiny_encoder: dict, tmp_path: Path) -> None:
    masks = torch.randint(0, len(NAMES), (3, 75, 140), generator=torch.Generator().manual_seed(2)).to(torch.uint8)
    model = trained(tiny_encoder, drawn_pictures(3), masks, head=None, bank={"size": 100, "precision": "fp16"})
    assert len(model.model.bank) == 100
    assert int(model.model.bank.counts.sum()) == 3 * 192
    check_parity(model, compiled(model.to_openvino(tmp_path)), drawn_pictures(2))


def test_onnx_carries_the_class_names(model: AOISSLRetrieval, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    path = model.to_onnx(tmp_path)
    properties = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert json.loads(properties["aoissl"])["class_names"] == NAMES
    check_parity(model, compiled(path), drawn_pictures(2))
    assert SegmentationOpenVINOInferencer(path).class_names == tuple(NAMES)


def test_half_precision_weights_change_few_pixels(model: AOISSLRetrieval, tmp_path: Path, xml: Path) -> None:
    half = model.to_openvino(tmp_path, compression_type=CompressionType.FP16)
    sizes = [path.with_suffix(".bin").stat().st_size for path in (xml, half)]
    weights = [*model.model.encoder.parameters(), model.model.bank.embeddings]
    assert sizes[0] - sizes[1] > 0.45 * sum(tensor.nbytes for tensor in weights)  # the labelled pixels are bytes
    images = drawn_pictures(3)  # what the bank holds, so that no two neighbours are nearly equally good
    result = compiled(half)(images.numpy())
    assert (result["pred_mask"] == model(images).pred_mask.numpy()).mean() > 0.99
    assert SegmentationOpenVINOInferencer(half).class_names == tuple(NAMES)


def test_four_channels(few_filters: None, tiny_encoder: dict, tmp_path: Path) -> None:
    pictures = drawn_pictures(1, channels=4)
    model = trained(tiny_encoder, pictures, drawn_masks(pictures))
    check_parity(model, compiled(model.to_openvino(tmp_path)), drawn_pictures(2, channels=4))


def test_stock_inferencers_run_the_exports(
    model: AOISSLRetrieval, xml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # anomalib's inferencer makes a cache folder where it runs
    monkeypatch.setenv("TRUST_REMOTE_CODE", "1")
    pixels = (255 * drawn_pictures(1)[0]).byte().permute(1, 2, 0).numpy()
    expected = model(torch.from_numpy(pixels / 255).permute(2, 0, 1)[None].float())
    stock = OpenVINOInferencer(xml, device="CPU", config={"INFERENCE_PRECISION_HINT": "f32"}).predict(pixels)
    np.testing.assert_allclose(stock.pred_score, expected.pred_score.numpy(), atol=1e-3)
    np.testing.assert_allclose(stock.anomaly_map[:, 0], expected.anomaly_map[:, 0].numpy(), atol=1e-3)
    stock_torch = TorchInferencer(model.to_torch(tmp_path), device="cpu").predict(pixels)
    torch.testing.assert_close(stock_torch.pred_score, expected.pred_score)


def test_our_inferencer_gives_the_original_size(model: AOISSLRetrieval, xml: Path, tmp_path: Path) -> None:
    inferencer = SegmentationOpenVINOInferencer(xml)
    pixels = (255 * drawn_pictures(1)[0]).byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(tmp_path / "a.png")
    expected = model(torch.from_numpy(pixels / 255).permute(2, 0, 1)[None].float())
    results = [
        inferencer.predict(tmp_path / "a.png"),
        inferencer.predict(pixels),
        *inferencer.predict_batch([pixels] * 2),
    ]
    nearest = np.array(Image.fromarray(expected.pred_mask[0, 0].numpy()).resize((140, 75), Image.Resampling.NEAREST))
    for result in results:
        assert result.class_map.shape == result.novelty.shape == (75, 140)
        assert (result.class_map == nearest).mean() > 0.999
        assert result.score == pytest.approx(expected.pred_score.item(), abs=1e-4)
        assert sum(result.class_shares().values()) == pytest.approx(1)
    results[0].save_mask(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png", num_classes=6), results[0].class_map)
    assert results[0].overlay().width == 140


def test_inferencer_errors(xml: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no\.xml: the model does not exist"):
        SegmentationOpenVINOInferencer(tmp_path / "no.xml")
    image = openvino.opset13.parameter([-1, 3, -1, -1], np.float32)
    openvino.save_model(openvino.Model([openvino.opset13.relu(image)], [image]), tmp_path / "bare.xml")
    with pytest.raises(ValueError, match=r"bare\.xml: carries no class names"):
        SegmentationOpenVINOInferencer(tmp_path / "bare.xml")
    inferencer = SegmentationOpenVINOInferencer(xml)
    with pytest.raises(ValueError, match="takes 3 planes, the image has 5"):
        inferencer.predict(np.zeros((20, 20, 5), dtype=np.uint8))
    with pytest.raises(TypeError, match="uint8, uint16, or float"):
        inferencer.predict(np.full((20, 20), 7.0))
    with pytest.raises(ValueError, match="images of one size"):
        inferencer.predict_batch([np.zeros((20, 20), np.uint8), np.zeros((20, 30), np.uint8)])


@pytest.mark.skipif(not REAL.is_dir(), reason="the real images of ../shared/data are not here")
def test_parity_on_real_images(model: AOISSLRetrieval, xml: Path) -> None:
    files = sorted((REAL / "images").glob("*0205*.jpg"))[:5]
    images = torch.stack([torch.from_numpy(read_image(path)) for path in files])
    network = compiled(xml)
    assert len(model(images[1:]).pred_mask.unique()) > 1
    check_parity(model, network, images[:1])
    check_parity(model, network, images[1:5])
