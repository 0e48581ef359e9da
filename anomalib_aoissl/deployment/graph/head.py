# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The pixel head in an OpenVINO model: its networks as named constants and operations, read and built without torch.

The export marks the tensors that hold the features and the class probabilities. Between them the networks are built
anew for the weights at hand, so that a model can be fitted again and take new classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from anomalib_aoissl.pixel_head.learning.sample import KINDS, PixelSample, sample_of
from anomalib_aoissl.pixel_head.learning.stages import Stages
from anomalib_aoissl.pixel_head.learning.views import EVERY_WAY, Variation
from anomalib_aoissl.pixel_head.points import CONTEXT_SCALE, RADII, STRIDE, blur
from anomalib_aoissl.pixel_head.stored import Layers

if TYPE_CHECKING:
    import openvino

PREFIX, PIXELS = "head.", "pixels."
"""What the names of the constants begin with: weights, and labelled pixels."""

TENSORS = ("fine_features", "coarse_features", "class_probabilities")
"""Marked tensors of a model with a pixel head."""

_LAYERS = 6


@dataclass(frozen=True)
class HeadContent:
    """A fitted head without what makes its features.

    Attributes:
        stages: The networks.
        mean: ``[F]``, subtracted from features.
        scale: ``[F]``, what they are divided by.
        per_image: Labelled pixels that are drawn of each image.
        basis: Of the features, see `PixelSample`.
        varied: How views of a labelled image differ from it.
    """

    stages: Stages
    mean: np.ndarray
    scale: np.ndarray
    per_image: int
    basis: str
    varied: Variation = EVERY_WAY

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays by name."""
        layers = {f"first_{i}": layer for i, layer in enumerate(self.stages.first)}
        layers |= {f"second_{i}": layer for i, layer in enumerate(self.stages.second)}
        return {"mean": self.mean, "scale": self.scale, "offsets": self.stages.offsets, **layers}

    def describe(self) -> dict[str, Any]:
        """Return the plain data that `content_of` needs beside the arrays."""
        sizes = {"fine": self.stages.fine, "tokens": self.stages.tokens, "per_image": self.per_image}
        return {**sizes, "basis": self.basis, "varied": asdict(self.varied)}


def content_of(description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> HeadContent:
    """Return the head of `HeadContent.describe` and arrays."""
    first, second = (
        tuple(np.array(arrays[f"{stage}_{i}"]) for i in range(_LAYERS) if f"{stage}_{i}" in arrays)
        for stage in ("first", "second")
    )
    stages = Stages(first, second, np.array(arrays["offsets"]), description["fine"], description["tokens"])
    mean, scale = np.array(arrays["mean"]), np.array(arrays["scale"])
    varied = Variation(**description.get("varied", {}))  # exports of 0.2.0 do not say
    return HeadContent(stages, mean, scale, description["per_image"], description["basis"], varied)


def pixels_of(arrays: Mapping[str, np.ndarray], basis: str) -> PixelSample | None:
    """Return the labelled pixels of arrays by name; None where they are not all there."""
    return sample_of(arrays, basis) if all(name in arrays for name in KINDS) else None


def build_head(fine: openvino.Output, coarse: openvino.Output, head: HeadContent) -> dict[str, Any]:
    """Return the tensors of the networks over features, by their marked names; what torch's head computes.

    Args:
        fine: Features ``[B, Ff, H, W]``.
        coarse: Features ``[B, Fc, h, w]`` at each fourth pixel.
        head: The head.
    """
    stages = head.stages
    if not stages.second:
        first = _moved(stages.first, stages.offsets)
        return {"class_probabilities": _network([fine], [coarse], first, head.mean, head.scale)}
    probabilities = _network([fine], [coarse], stages.first, head.mean, head.scale)
    blurred = _context_maps(probabilities)
    classes, context = stages.classes, stages.classes * len(RADII)
    mean, scale = (
        np.concatenate([v[: stages.fine], np.full(classes, x, "f"), v[stages.fine :], np.full(context, x, "f")])
        for v, x in ((head.mean, 0.0), (head.scale, CONTEXT_SCALE))
    )
    layers = _moved(stages.second, stages.offsets)
    second = _network([fine, probabilities], [coarse, blurred], layers, mean, scale)
    return {"first_probabilities": probabilities, "context_maps": blurred, "class_probabilities": second}


def _network(
    fine: Sequence[openvino.Output],
    coarse: Sequence[openvino.Output],
    layers: Layers,
    mean: np.ndarray,
    scale: np.ndarray,
) -> openvino.Output:
    """Return a network's class probabilities ``[B, C, H, W]``; its first layer standardises the features."""
    from openvino import opset13 as ops

    weight = layers[0] / scale[:, None]
    bias = layers[1] - mean @ weight
    ends = np.cumsum([maps.get_partial_shape()[1].get_length() for maps in (*fine, *coarse)])
    weights = np.split(weight, ends[:-1])
    added = _enlarged(_summed(coarse, weights[len(fine) :]), fine[0])
    maps = ops.add(_summed(fine, weights[: len(fine)], bias), added)
    for weight, bias in zip(layers[2::2], layers[3::2], strict=True):
        maps = _linear(ops.relu(maps), weight, bias)
    return ops.softmax(maps, 1).output(0)


def _moved(layers: Layers, offsets: np.ndarray) -> Layers:
    """Return layers whose scores have offsets of the classes added."""
    return (*layers[:-1], layers[-1] + offsets)


def _summed(
    maps: Sequence[openvino.Output], weights: Sequence[np.ndarray], bias: np.ndarray | None = None
) -> openvino.Output:
    """Return the sum of linear layers, one of each maps."""
    from openvino import opset13 as ops

    result = _linear(maps[0], weights[0], bias)
    for others, weight in zip(maps[1:], weights[1:], strict=True):
        result = ops.add(result, _linear(others, weight))
    return result


def _linear(maps: openvino.Output, weight: np.ndarray, bias: np.ndarray | None = None) -> openvino.Output:
    """Return a linear layer ``[in, out]`` of each pixel of maps ``[B, in, H, W]``."""
    from openvino import opset13 as ops

    kernel = ops.constant(np.ascontiguousarray(weight.T[:, :, None, None], np.float32))
    maps = ops.convolution(maps, kernel, [1, 1], [0, 0], [0, 0], [1, 1])
    return maps if bias is None else ops.add(maps, ops.constant(bias[None, :, None, None].astype(np.float32)))


def _enlarged(coarse: openvino.Output, fine: openvino.Output) -> openvino.Output:
    """Return coarse maps at the pixels of fine ones, bilinear."""
    from openvino import opset13 as ops

    size, small = _size(fine), _size(coarse.output(0))
    covered = np.array([STRIDE * side for side in small], np.int64)
    maps = ops.interpolate(coarse, covered, "linear_onnx", "sizes", axes=np.array([2, 3], np.int64))
    return maps if tuple(covered) == size else ops.slice(maps, [0, 0], list(size), [1, 1], [2, 3])


def _context_maps(probabilities: openvino.Output) -> openvino.Output:
    """Return class probabilities blurred at each radius, at each fourth pixel."""
    from openvino import opset13 as ops

    height, width = _size(probabilities)
    ends = np.array([0, 0, -height % STRIDE, -width % STRIDE], np.int64)
    padded = ops.pad(probabilities, np.zeros(4, np.int64), ends, "edge") if ends.any() else probabilities
    sides = [STRIDE, STRIDE]
    small = ops.avg_pool(padded, sides, [0, 0], [0, 0], sides, exclude_pad=True)
    down, across = (
        [ops.constant(blur(-(-side // STRIDE), radius / STRIDE)) for radius in RADII] for side in (height, width)
    )
    products = [
        ops.matmul(rows, ops.matmul(small, columns, False, True), False, False)
        for rows, columns in zip(down, across, strict=True)
    ]
    return ops.concat(products, 1).output(0)


def _size(output: openvino.Output) -> tuple[int, int]:
    """Return the (height, width) of a tensor ``[B, C, H, W]``."""
    shape = output.get_partial_shape()
    return shape[2].get_length(), shape[3].get_length()
