# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The pixel head's networks over whole images: their first layers act on each map at the map's own resolution."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.compiler import is_exporting
from torch.nn import functional

from .features import FeatureMaps, enlarged

_ROWS = 16
"""Rows of an image that are answered at once: their hidden units fit the processor's cache, those of all do not."""


def class_scores(layers: Sequence[torch.Tensor], features: FeatureMaps) -> torch.Tensor:
    """Return scores before the softmax ``[B, C, H, W]`` of a network of rectified linear layers.

    A linear layer commutes with bilinear enlargement, so that coarse features are never enlarged themselves.

    Args:
        layers: Weights ``[in, out]`` and biases ``[out]`` in turn; the inputs are the fine, then the coarse features.
        features: Maps of the images.
    """
    size = (features.fine.shape[-2], features.fine.shape[-1])
    fine, coarse = layers[0].split([features.fine.shape[1], features.coarse.shape[1]])
    added, layers = enlarged(_linear(features.coarse, coarse), size), [fine, *layers[1:]]
    if is_exporting():  # a graph has no loop over rows
        return _answered(layers, features.fine, added)
    strips = zip(features.fine.split(_ROWS, dim=2), added.split(_ROWS, dim=2), strict=True)
    return torch.cat([_answered(layers, *strip) for strip in strips], dim=2)


def _answered(layers: Sequence[torch.Tensor], fine: torch.Tensor, added: torch.Tensor) -> torch.Tensor:
    """Return the scores of fine features, given what the coarse ones add to the first layer's answer."""
    maps = _linear(fine, layers[0], layers[1]).add_(added)  # in place: new memory costs as much as the sum
    for weight, bias in zip(layers[2::2], layers[3::2], strict=True):
        maps = _linear(maps.relu_(), weight, bias)
    return maps


def _linear(maps: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Return a linear layer ``[in, out]`` of each pixel of maps ``[B, in, H, W]``."""
    return functional.conv2d(maps, weight.T[:, :, None, None], bias)
