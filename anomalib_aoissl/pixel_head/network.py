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


def class_scores(layers: Sequence[torch.Tensor], *features: FeatureMaps) -> torch.Tensor:
    """Return scores before the softmax ``[B, C, H, W]`` of a network of rectified linear layers.

    A linear layer commutes with bilinear enlargement, so that coarse features are never enlarged themselves. It is a
    sum over its inputs too, so that several features are never put together in memory.

    Args:
        layers: Weights ``[in, out]`` and biases ``[out]`` in turn; the inputs are all fine, then all coarse features.
        features: Maps of the images.
    """
    fine, coarse = [maps.fine for maps in features], [maps.coarse for maps in features]
    weights = layers[0].split([maps.shape[1] for maps in (*fine, *coarse)])
    of_fine, of_coarse = weights[: len(fine)], weights[len(fine) :]
    size = (fine[0].shape[-2], fine[0].shape[-1])
    added = enlarged(_summed(coarse, of_coarse), size)
    if is_exporting():  # a graph has no loop over rows
        return _answered(layers, of_fine, fine, added)
    strips = zip(*(maps.split(_ROWS, dim=2) for maps in (added, *fine)), strict=True)
    return torch.cat([_answered(layers, of_fine, parts, added) for added, *parts in strips], dim=2)


def _answered(
    layers: Sequence[torch.Tensor], weights: Sequence[torch.Tensor], fine: Sequence[torch.Tensor], added: torch.Tensor
) -> torch.Tensor:
    """Return the scores of fine features by the first layer's weights of them, given what the coarse ones add."""
    maps = _summed(fine, weights, layers[1]).add_(added)  # in place: new memory costs as much as the sum
    for weight, bias in zip(layers[2::2], layers[3::2], strict=True):
        maps = _linear(maps.relu_(), weight, bias)
    return maps


def _summed(
    maps: Sequence[torch.Tensor], weights: Sequence[torch.Tensor], bias: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the sum of linear layers, one of each maps."""
    result = _linear(maps[0], weights[0], bias)
    for others, weight in zip(maps[1:], weights[1:], strict=True):
        result = result.add_(_linear(others, weight))
    return result


def _linear(maps: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Return a linear layer ``[in, out]`` of each pixel of maps ``[B, in, H, W]``."""
    return functional.conv2d(maps, weight.T[:, :, None, None], bias)
