# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""This package's models in the study, and the linear probe of their encoder."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from anomalib.engine import Engine
from lightning.pytorch.callbacks import Timer
from sklearn.linear_model import LogisticRegression
from torch.nn import functional

from anomalib_aoissl import AOISSLRetrieval, AOISSLSegmenter
from anomalib_aoissl.data.indices import IGNORE_INDEX
from anomalib_aoissl.models.preprocessing import SegmentationPreProcessor

from ..sets import RunData

__all__ = ["CPUTimer", "Predictor", "fitted_retrieval", "linear_probe", "retrieval", "segmenter"]

Predictor = Callable[[torch.Tensor], np.ndarray]
"""An image ``[3, H, W]`` in [0, 1] to class indices ``[H, W]`` uint8."""

_PROBE_TOKENS = 20_000


class CPUTimer(Timer):
    """Lightning's timer by the CPU seconds of this process since it was made, for machines that others use too."""

    def __init__(self, seconds: float) -> None:
        super().__init__({"seconds": seconds}, verbose=False)  # type: ignore[dict-item]
        self._begun = time.process_time()

    def time_elapsed(self, stage: str = "train") -> float:
        """Return the CPU seconds that were used."""
        del stage
        return time.process_time() - self._begun


def retrieval(data: RunData, spec: Mapping[str, Any], encoder: Mapping[str, Any]) -> Predictor:
    """Fit `AOISSLRetrieval` with the model's arguments: the pixel head, or a vote."""
    return _predictor(fitted_retrieval(data, spec, encoder))


def fitted_retrieval(data: RunData, spec: Mapping[str, Any], encoder: Mapping[str, Any]) -> AOISSLRetrieval:
    """Return `AOISSLRetrieval` as it is after the fit."""
    arguments = {**spec["model_settings"].get("arguments", {}), "image_size": data.size, "visualizer": False}
    model = AOISSLRetrieval(seed=spec["seed"], **encoder, **arguments)
    _engine().fit(model, datamodule=data.module)
    return model.eval()


def segmenter(data: RunData, spec: Mapping[str, Any], encoder: Mapping[str, Any]) -> Predictor:
    """Train `AOISSLSegmenter` for the budget's CPU seconds."""
    arguments = {**spec["model_settings"].get("arguments", {}), "image_size": data.size, "visualizer": False}
    model = AOISSLSegmenter(training={"select": "last"}, seed=spec["seed"], **encoder, **arguments)
    engine = _engine(callbacks=[CPUTimer(spec["budget"])], max_epochs=1_000_000)
    engine.fit(model, datamodule=data.module)
    return _predictor(model.eval())


def linear_probe(data: RunData, spec: Mapping[str, Any], encoder: Mapping[str, Any]) -> Predictor:
    """Fit a linear classifier to the frozen encoder's tokens; its scores are enlarged to pixels."""
    model = AOISSLRetrieval(**encoder, image_size=data.size, visualizer=False).eval()
    network, see = model.model.encoder, _sight(model)

    def tokens(image: torch.Tensor) -> np.ndarray:
        with torch.no_grad():
            found: np.ndarray = network(see(image[None]))[0].numpy()
        return found

    rows, columns = network.grid_size
    half = network.patch_size[0] // 2
    features, labels = [], []
    for image, mask in zip(data.labelled.images, data.labelled.masks, strict=True):
        middles = mask[half :: 2 * half, half :: 2 * half][:rows, :columns].reshape(-1).numpy()
        known = middles != IGNORE_INDEX
        features.append(tokens(image)[known])
        labels.append(middles[known])
    x, y = np.concatenate(features), np.concatenate(labels)
    chosen = np.random.default_rng(spec["seed"]).permutation(len(x))[:_PROBE_TOKENS]
    mean, deviation = x.mean(axis=0), x.std(axis=0) + 1e-6
    if len(np.unique(y[chosen])) < 2:
        return lambda _: np.full(data.size, y[0], np.uint8)
    line = LogisticRegression(max_iter=300, C=0.1).fit((x[chosen] - mean) / deviation, y[chosen])

    def predict(image: torch.Tensor) -> np.ndarray:
        scores = torch.from_numpy(line.predict_log_proba((tokens(image) - mean) / deviation)).float()
        maps = scores.T.reshape(1, -1, rows, columns)
        best = functional.interpolate(maps, data.size, mode="bilinear", align_corners=False)[0].argmax(dim=0)
        return line.classes_[best.numpy()].astype(np.uint8)

    return predict


def _engine(**arguments: Any) -> Engine:
    """Return anomalib's engine without anything to look at."""
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "limit_val_batches": 0}
    return Engine(default_root_dir=tempfile.mkdtemp(), accelerator="cpu", devices=1, **quiet, **arguments)


def _sight(model: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return how a model sees images of its size."""
    pre_processor: SegmentationPreProcessor = model.pre_processor
    return pre_processor.see


def _predictor(model: Any) -> Predictor:
    """Return a fitted model as a predictor."""

    def predict(image: torch.Tensor) -> np.ndarray:
        with torch.no_grad():
            mask: np.ndarray = model.model(_sight(model)(image[None])).pred_mask[0, 0].numpy().astype(np.uint8)
        return mask

    return predict
