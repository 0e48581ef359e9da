# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Peers that are trained end to end: networks of segmentation_models_pytorch from random weights, under a budget.

Crops of 256 px at random scale, turned, mirrored and under changed light; AdamW whose rate falls to 0 where the budget
ends; weighted cross-entropy and Dice loss. What a practised user would do with few images.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import segmentation_models_pytorch as smp
import torch
from torch.nn import functional

from anomalib_aoissl.data.indices import IGNORE_INDEX

from ..sets import Pictures, RunData
from .ours import Predictor

__all__ = ["network"]

_CROP, _BATCH, _RATE, _WARMUP_STEPS, _STRIDE = 256, 4, 1e-3, 20, 32


def network(data: RunData, spec: Mapping[str, Any], encoder: Mapping[str, Any]) -> Predictor:
    """Train a network, ``architecture`` of the model's settings, for the budget's CPU seconds."""
    del encoder
    settings, classes = spec["model_settings"], len(data.class_names)
    net = smp.create_model(
        settings["architecture"], settings.get("backbone", "resnet18"), encoder_weights=None, classes=classes
    )
    pictures = data.labelled
    mean = pictures.images.mean(dim=(0, 2, 3), keepdim=True)
    deviation = pictures.images.std(dim=(0, 2, 3), keepdim=True) + 1e-3
    optimizer = torch.optim.AdamW(net.parameters(), _RATE, weight_decay=1e-2)
    weights, generator = _class_weights(pictures.masks, classes), torch.Generator().manual_seed(spec["seed"])
    net.train()
    begun, steps, done = time.process_time(), 0, 0.0
    while done < 1:
        for group in optimizer.param_groups:
            group["lr"] = _RATE * min(1.0, (steps + 1) / _WARMUP_STEPS) * (0.5 + 0.5 * math.cos(math.pi * done))
        images, masks = _batch(pictures, generator)
        loss = _loss(net((images - mean) / deviation), masks, weights)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        steps += 1
        done = (time.process_time() - begun) / spec["budget"]
    net.eval()

    def predict(image: torch.Tensor) -> np.ndarray:
        with torch.no_grad():
            return _classes(net, (image[None] - mean) / deviation)

    return predict


def _classes(net: torch.nn.Module, images: torch.Tensor) -> np.ndarray:
    """Return the class indices ``[H, W]`` of one image, padded to what the network's stride asks for."""
    height, width = images.shape[-2:]
    padded = functional.pad(images, (0, -width % _STRIDE, 0, -height % _STRIDE), mode="replicate")
    best: np.ndarray = net(padded)[0, :, :height, :width].argmax(dim=0).numpy().astype(np.uint8)
    return best


def _class_weights(masks: torch.Tensor, classes: int) -> torch.Tensor:
    """Return weights ``[classes]`` of mean 1 that fall with the root of a class's pixels."""
    counts = torch.bincount(masks[masks != IGNORE_INDEX].long().flatten(), minlength=classes).float()
    weights = (counts.sum() / counts.clamp(min=1)).sqrt()
    return weights / weights.mean()


def _batch(pictures: Pictures, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images ``[B, 3, h, h]`` and masks ``[B, h, h]`` of random views."""
    views = [_view(pictures, generator) for _ in range(_BATCH)]
    images, masks = zip(*views, strict=True)
    return torch.stack(images), torch.stack(masks)


def _view(pictures: Pictures, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a random crop of a random image, resampled, turned, mirrored and under another light."""
    index = int(torch.randint(len(pictures.images), (1,), generator=generator))
    image, mask = pictures.images[index], pictures.masks[index]
    scale, down, across, flip, turn, gain, shift = torch.rand(7, generator=generator).tolist()
    height, width = mask.shape
    side = min(int(_CROP / (0.75 + 0.6 * scale)), height, width)
    target = min(_CROP, height // _STRIDE * _STRIDE, width // _STRIDE * _STRIDE)
    top, left = round(down * (height - side)), round(across * (width - side))
    crop = image[None, :, top : top + side, left : left + side]
    labels = mask[None, None, top : top + side, left : left + side].float()
    crop = functional.interpolate(crop, (target, target), mode="bilinear", align_corners=False)[0]
    labels = functional.interpolate(labels, (target, target), mode="nearest-exact")[0, 0].long()
    quarters = int(turn * 4)
    crop, labels = crop.rot90(quarters, (1, 2)), labels.rot90(quarters, (0, 1))
    if flip < 0.5:
        crop, labels = crop.flip(-1), labels.flip(-1)
    return crop * (0.75 + 0.5 * gain) + 0.2 * (shift - 0.5), labels


def _loss(scores: torch.Tensor, masks: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return cross-entropy and Dice loss of scores ``[B, C, H, W]``; pixels of mask 255 do not count."""
    counted = (masks != IGNORE_INDEX)[:, None]
    truth = functional.one_hot(masks.where(masks != IGNORE_INDEX, 0), scores.shape[1]).permute(0, 3, 1, 2) * counted
    shares = scores.softmax(dim=1) * counted
    overlap, total = (shares * truth).sum(dim=(0, 2, 3)), (shares + truth).sum(dim=(0, 2, 3))
    dice = 1 - ((2 * overlap + 1) / (total + 1)).mean()
    if not bool(counted.any()):
        return 0.0 * scores.sum()
    return dice + functional.cross_entropy(scores, masks, weight=weights, ignore_index=IGNORE_INDEX)
