# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Small exported models whose banks tests edit, and what they are compared with."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from making_once import made_once

from anomalib_aoissl import AOISSLRetrieval
from anomalib_aoissl.bank.storage import write_bank
from anomalib_aoissl.data.describing.file_format import FileFormat
from anomalib_aoissl.deployment.inferencer import SegmentationOpenVINOInferencer

SIZE = (32, 48)
CLASSES = ["background", "wire", "ball"]
ENCODER = {
    "architecture": "vit_tiny_patch16_224",
    "model_args": {"patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2},
}


def make_model(images: int, seed: int, class_names: list[str] = CLASSES, **arguments: Any) -> AOISSLRetrieval:
    """Return a model that has learnt drawn images of the device "old"."""
    model = AOISSLRetrieval(encoder={**ENCODER, "pretrained": False}, image_size=SIZE, **arguments).eval()
    model.set_dataset(class_names, FileFormat())
    pictures, masks = labelled(images, seed, len(class_names))
    model.add(pictures, masks, ["old"] * images, [f"{seed}-{index}" for index in range(images)])
    return model


def traced_once(model: Any) -> Any:
    """Return the model, whose exports all share one graph: tracing takes most of their time."""
    model._onnx_model = partial(_given, model._onnx_model({}))  # which a torch export can save
    return model


def write(model: AOISSLRetrieval, folder: Path) -> None:
    """Write a model and its export."""
    model.to_openvino(folder)
    torch.save(model, folder / "model.pt")


def bank_files() -> Path:
    """Return the folder of a model whose bank decides the classes, with one graph, and its export; made once."""
    made = partial(make_model, 3, seed=1, bank={"size": 70}, head=None)
    return made_once("bank_model", lambda folder: write(traced_once(made()), folder))


def _given(traced: Any, options: Any) -> Any:
    return traced


def labelled(images: int, seed: int, classes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Return pictures [B, 3, 40, 70] of 8 bits with coarse structure and masks that follow their brightness."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.nn.functional.interpolate(torch.rand(images, 3, 5, 7, generator=generator), size=(40, 70))
    noise = torch.rand(images, 3, 40, 70, generator=generator)
    pictures = (255 * (0.8 * coarse + 0.2 * noise)).round() / 255
    masks = (coarse.mean(dim=1) * classes).clamp(max=classes - 1).to(torch.uint8)
    masks[:, :6, :9] = 255
    return pictures, masks


def array_of(picture: torch.Tensor) -> np.ndarray:
    """Return a picture [3, H, W] in [0, 1] as a camera gives it."""
    return (255 * picture).round().byte().permute(1, 2, 0).numpy()


def check_equal(inferencer: SegmentationOpenVINOInferencer, model: AOISSLRetrieval, tolerance: float = 1e-5) -> None:
    """Compare the whole graph's answers to two images with those of torch."""
    pictures, _ = labelled(2, seed=99)
    expected, answer = model(pictures), inferencer._compiled(pictures.numpy())
    assert (answer["pred_mask"] == expected.pred_mask.numpy()).mean() >= 0.999
    np.testing.assert_allclose(answer["anomaly_map"], expected.anomaly_map.detach().numpy(), atol=tolerance)
    np.testing.assert_allclose(answer["pred_score"], expected.pred_score.detach().numpy(), atol=tolerance)


def bank_file(model: AOISSLRetrieval, folder: Path) -> Path:
    return write_bank(model.model.bank.content(), folder / "bank.safetensors")
