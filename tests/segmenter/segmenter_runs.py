# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What the segmenter's tests train: tiny models, their data and runs, and heads of random numbers."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anomalib.engine import Engine
from lightning.pytorch import Callback

from anomalib_aoissl import AOISSLSegmenter, SegmentationFolder
from anomalib_aoissl.encoder.vit import PatchEncoder
from anomalib_aoissl.pixel_head.filters import filter_counts
from anomalib_aoissl.segmenter.options import TrainingOptions
from anomalib_aoissl.segmenter.torch_model import SegmenterModel

SIZE = (64, 64)
QUIET = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False, "logger": False}


def make_model(tiny_encoder: dict, **arguments: Any) -> AOISSLSegmenter:
    """Return a small model; what is an option of training may be given by its own name."""
    training = {name: arguments.pop(name) for name in TrainingOptions.RULES if name in arguments}
    defaults = {"image_size": SIZE, "training": {"validations": 2, **training}, "visualizer": False}
    return AOISSLSegmenter(**{"encoder": {**tiny_encoder, "pretrained": False}, **defaults, **arguments})


def make_data(root: Path, **arguments: Any) -> SegmentationFolder:
    return SegmentationFolder(root, **{"num_workers": 0, "test_ratio": 0.25, "val_ratio": 0.25, **arguments})


class Record(Callback):
    """Notes what happens in a run."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.losses: list[float] = []
        self.validated_at: list[int] = []
        self.mean_iou: list[float] = []

    def on_train_batch_end(self, trainer: Any, _module: Any, outputs: Any, _batch: Any, _index: int) -> None:
        self.rates.append(max(group["lr"] for group in trainer.optimizers[0].param_groups))
        self.losses.append(float(outputs["loss"]))

    def on_validation_end(self, trainer: Any, _module: Any) -> None:
        self.validated_at.append(trainer.global_step)
        self.mean_iou.append(float(trainer.callback_metrics["val_mean_iou"]))


def train(model: AOISSLSegmenter, data: Any, folder: Path, **trainer: Any) -> tuple[Engine, Record, dict]:
    record = Record()
    engine = Engine(default_root_dir=folder, callbacks=[record], **{"max_steps": 4, **QUIET, **trainer})
    return engine, record, engine.train(model, datamodule=data)[0]


def make_torch_model(
    size: tuple[int, int] = (64, 48), classes: int = 5, planes: int = 3, *, autocontext: bool = False, **vit: int
) -> SegmenterModel:
    """Return a model whose head and decoder are random numbers."""
    arguments = {"patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, **vit}
    description = {"architecture": "vit_tiny_patch16_224", "model_args": arguments}
    model = SegmenterModel(PatchEncoder(description, image_size=size, in_channels=planes, pretrained=False))
    model.make_decoder(classes)
    fill_head(model, classes, autocontext)
    return model.eval()


def fill_head(model: SegmenterModel, classes: int, autocontext: bool = False) -> None:
    """Give the head random networks, which see the light of day at about unit size."""
    random = np.random.default_rng(1)

    def normal(*shape: int, spread: float = 1.0) -> torch.Tensor:
        return torch.from_numpy(random.normal(0, spread, shape).astype(np.float32))

    head, planes = model.head, model.encoder.in_channels
    tokens = model.encoder.token_dim
    directions, (fine, coarse) = min(tokens, 128), filter_counts(planes)
    features = fine + coarse + directions
    head.directions, head.centre = normal(tokens, directions, spread=tokens**-0.5), normal(tokens)
    head.mean, head.scale = normal(features, spread=0.1), normal(features).abs() + 0.5
    head.offsets = normal(classes, spread=0.3)
    for stage, inputs in (("first", features), ("second", features + 6 * classes)):
        sizes = (inputs, 16, 8, classes)
        layers = [part for a, b in pairwise(sizes) for part in (normal(a, b, spread=2 * a**-0.5), normal(b))]
        if stage == "first" or autocontext:
            head.set_layers(stage, tuple(layer.numpy() for layer in layers))


def wake(model: SegmenterModel) -> None:
    """Give the decoder's last layers, which are 0 before training, weights of the size that training gives."""
    assert model.decoder is not None
    model.decoder_weight.fill_(1.0)
    for layer in (model.decoder.coarse_scores, model.decoder.fine_scores):
        torch.nn.init.normal_(layer.weight, std=0.5)
        torch.nn.init.normal_(layer.bias, std=0.5)
