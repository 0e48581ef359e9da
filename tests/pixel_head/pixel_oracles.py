# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What the tests of the pixel head compare with: written without the package, and samples to fit to."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import nn

from anomalib_aoissl.pixel_head.learning.labelled import LabelledImage
from anomalib_aoissl.pixel_head.learning.sample import PixelSample


def dense(layers: Sequence[np.ndarray | torch.Tensor], values: np.ndarray | torch.Tensor) -> torch.Tensor:
    """Return the scores ``[N, C]`` of rows ``[N, F]`` by torch's linear layers, in double precision."""
    arrays = [torch.as_tensor(layer).double() for layer in layers]
    parts: list[nn.Module] = []
    for weight, bias in zip(arrays[::2], arrays[1::2], strict=True):
        linear = nn.Linear(*weight.shape, dtype=torch.float64)
        linear.weight.data, linear.bias.data = weight.T.clone(), bias.clone()
        parts += [linear, nn.ReLU()]
    with torch.no_grad():
        return nn.Sequential(*parts[:-1])(torch.as_tensor(values).double())


def bilinear(maps: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return maps ``[F, h, w]``, each pixel 4x4 px of an image, at the centres of an image's pixels ``[F, H, W]``."""
    rows, columns = ((np.arange(side) + 0.5) / 4 - 0.5 for side in (height, width))
    across = np.apply_along_axis(lambda line: np.interp(columns, np.arange(len(line)), line), 2, maps.astype(float))
    return np.apply_along_axis(lambda line: np.interp(rows, np.arange(len(line)), line), 1, across)


def block_means(plane: np.ndarray) -> np.ndarray:
    """Return the means over 4x4 px of a plane ``[H, W]`` whose last row and column are repeated to fill the blocks."""
    padded = np.pad(plane.astype(float), [(0, -side % 4) for side in plane.shape], mode="edge")
    return np.array(
        [
            [padded[row : row + 4, column : column + 4].mean() for column in range(0, padded.shape[1], 4)]
            for row in range(0, padded.shape[0], 4)
        ]
    )


def random_network(sizes: Sequence[int], seed: int = 0) -> tuple[np.ndarray, ...]:
    """Return layers of any size, with biases that are not 0."""
    random = np.random.default_rng(seed)
    layers: list[np.ndarray] = []
    for inputs, outputs in pairwise(sizes):
        layers += [random.normal(0, inputs**-0.5, (inputs, outputs)), random.normal(0, 0.3, outputs)]
    return tuple(layer.astype(np.float32) for layer in layers)


def sample_with(values: np.ndarray, labels: np.ndarray, images: np.ndarray, context: int = 0) -> PixelSample:
    """Return a sample of these values, labels and images, each image a fold; its context is random."""
    number, random = len(values), np.random.default_rng(5)
    return PixelSample(
        values=values.astype(np.int8),
        labels=labels.astype(np.uint8),
        device_ids=np.zeros(number, np.int32),
        image_ids=images.astype(np.int32),
        weights=np.ones(number, np.float32),
        novelty=np.full(number, np.nan, np.float32),
        folds=images.astype(np.uint8),
        context=random.integers(-127, 128, (number, context)).astype(np.int8),
        basis="one",
    )


def toy_sample(number: int, classes: int, *, images: int = 3, context: int = 0, seed: int = 0) -> PixelSample:
    """Return pixels whose class shows in the first features, far apart: ``[number, 8]``."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, number)
    values = random.normal(0, 10, (number, 8))
    values[np.arange(number), labels] += 60
    return sample_with(np.clip(np.rint(values), -127, 127), labels, random.integers(0, images, number), context)


def labelled(number: int, size: tuple[int, int] = (32, 48), planes: int = 3, seed: int = 0) -> list[LabelledImage]:
    """Return images with a bright rectangle, class 1, on a dark ground, class 0."""
    random, images = np.random.default_rng(seed), []
    for order in range(number):
        mask = np.zeros(size, np.uint8)
        row, column = random.integers(2, size[0] // 2), random.integers(2, size[1] // 2)
        mask[row : row + size[0] // 3, column : column + size[1] // 3] = 1
        values = 0.25 + 0.5 * mask + random.normal(0, 0.04, (planes, *size))
        image = torch.from_numpy(values.clip(0, 1)).float()[None]
        images.append(LabelledImage(image, torch.from_numpy(mask), order % 2, 10 + order))
    return images
