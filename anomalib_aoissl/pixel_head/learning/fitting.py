# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Fitting the pixel head's network: gradient descent in numpy, so that a model on the line learns as training does."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from ..stored import Layers

BATCH, HIDDEN = 1024, (64, 64)
_RATE, _DECAY, _WARM_STEPS = 3e-3, 1e-2, 30
_DROPOUT, _NOISE = 0.1, 0.05  # of standardised features
_TOKENLESS = 0.3
"""Share of the drawn pixels whose tokens are hidden: the filters then have to do alone, and the network does not lean
on what only the labelled images' tokens have."""

_BETAS, _EPS = (0.9, 0.999), 1e-8  # of Adam

_REPORTED = 50  # steps between reports


@dataclass(frozen=True)
class Schedule:
    """How long a network is fitted.

    Attributes:
        steps: Steps of gradient descent.
        seed: Of everything random.
        report: Is called now and then with the share of the steps that were done since; the shares sum up to 1.
    """

    steps: int
    seed: int = 0
    report: Callable[[float], Any] = lambda _: None


def fit_network(
    values: np.ndarray,
    labels: np.ndarray,
    classes: int,
    *,
    scale: float = 1.0,
    tokens: slice = slice(0, 0),
    start: Layers | None = None,
    schedule: Schedule,
) -> Layers:
    """Return the layers of a network that tells the classes of pixels from their features.

    Two hidden layers of 64 units, cross entropy, AdamW [0] at a rate that rises for 30 steps and then falls
    along a cosine; features are hidden at random and get noise. The same arguments give the same layers.

    [0]: Loshchilov and Hutter, Decoupled Weight Decay Regularization, 2019, arXiv 1711.05101.

    Args:
        values: Features ``[N, F]``, int8 or float32; times ``scale`` they are standardised.
        labels: Class indices ``[N]``.
        classes: C.
        scale: See ``values``.
        tokens: Columns of the encoder's tokens, which are hidden together.
        start: Layers to go on from; those of a random network where there are none.
        schedule: How long, and with which seed.
    """
    with threadpool_limits(1, "blas"):  # products this small take several times as long where threads wait for others
        return _fitted(values.astype(np.float32) * np.float32(scale), labels, classes, tokens, start, schedule)


def _fitted(
    standardised: np.ndarray, labels: np.ndarray, classes: int, tokens: slice, start: Layers | None, schedule: Schedule
) -> Layers:
    """Return the layers of `fit_network` for standardised features ``[N, F]``."""
    random = np.random.default_rng(schedule.seed)
    features = standardised.shape[1]
    layers = [layer.copy() for layer in start or random_layers((features, *HIDDEN, classes), random)]
    optimizer = _Adam(layers)
    # Twice as many as a step needs: each step begins at another place, which is as good as new numbers, and faster.
    noise = random.standard_normal(2 * BATCH * features, dtype=np.float32) * np.float32(_NOISE)
    kept = (random.random(2 * BATCH * features, dtype=np.float32) >= _DROPOUT) * np.float32(1 / (1 - _DROPOUT))
    for step in range(schedule.steps):
        drawn = random.integers(0, len(standardised), BATCH)
        inputs = np.take(standardised, drawn, axis=0)
        start_at = random.integers(0, inputs.size, 2)
        inputs += noise[start_at[0] :][: inputs.size].reshape(inputs.shape)
        inputs *= kept[start_at[1] :][: inputs.size].reshape(inputs.shape)
        inputs[:, tokens] *= random.random((BATCH, 1), dtype=np.float32) >= _TOKENLESS
        optimizer.step(slopes(layers, inputs, labels[drawn]), _rate(step, schedule.steps))
        if step % _REPORTED == 0:
            schedule.report(min(_REPORTED, schedule.steps - step) / schedule.steps)
    return tuple(layers)


def random_layers(sizes: tuple[int, ...], random: np.random.Generator) -> Layers:
    """Return random layers of these sizes; the last one is small, so that no class is likely at first."""
    layers = []
    for index, (inputs, outputs) in enumerate(pairwise(sizes)):
        spread = math.sqrt(2 / inputs) * (0.1 if index == len(sizes) - 2 else 1.0)
        layers += [random.standard_normal((inputs, outputs), dtype=np.float32) * np.float32(spread)]
        layers += [np.zeros(outputs, np.float32)]
    return tuple(layers)


def scores(layers: Layers, values: np.ndarray) -> np.ndarray:
    """Return the scores before the softmax ``[N, C]`` of standardised features ``[N, F]``."""
    return _activations(layers, values)[-1]


def probabilities(layers: Layers, values: np.ndarray) -> np.ndarray:
    """Return the class probabilities ``[N, C]`` of standardised features ``[N, F]``."""
    return _softmax(scores(layers, values))


def slopes(layers: Layers | list[np.ndarray], inputs: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
    """Return the gradient of the mean cross entropy with respect to each of the layers' arrays.

    Args:
        layers: Weights and biases.
        inputs: Standardised features ``[N, F]``.
        labels: Class indices ``[N]``.
    """
    activations = _activations(layers, inputs)
    slope = _softmax(activations[-1])
    slope[np.arange(len(labels)), labels] -= 1
    slope /= len(labels)
    gradients: list[np.ndarray] = []
    for index in range(len(layers) // 2 - 1, -1, -1):
        gradients[:0] = [activations[index].T @ slope, slope.sum(axis=0)]
        if index:
            slope = (slope @ layers[2 * index].T) * (activations[index] > 0)
    return gradients


def _activations(layers: Layers | list[np.ndarray], inputs: np.ndarray) -> list[np.ndarray]:
    """Return the inputs, what each hidden layer gives after its rectifier, and the scores."""
    activations = [inputs]
    for index in range(0, len(layers), 2):
        outputs = activations[-1] @ layers[index] + layers[index + 1]
        activations.append(np.maximum(outputs, 0) if index < len(layers) - 2 else outputs)
    return activations


def _softmax(values: np.ndarray) -> np.ndarray:
    """Return the softmax along the last axis."""
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def _rate(step: int, steps: int) -> float:
    """Return the learning rate of a step."""
    return _RATE * min(1.0, (step + 1) / _WARM_STEPS) * (0.5 + 0.5 * math.cos(math.pi * step / steps))


class _Adam:
    """AdamW over arrays that it changes in place; biases do not decay."""

    def __init__(self, arrays: list[np.ndarray]) -> None:
        self.arrays, self.count = arrays, 0
        self.means, self.squares = ([np.zeros_like(array) for array in arrays] for _ in range(2))

    def step(self, gradients: list[np.ndarray], rate: float) -> None:
        """Take a step against the gradients."""
        self.count += 1
        (first, second), count = _BETAS, self.count
        for index, gradient in enumerate(gradients):
            mean, square = self.means[index], self.squares[index]
            np.add(mean, (1 - first) * (gradient - mean), out=mean)
            np.add(square, (1 - second) * (gradient * gradient - square), out=square)
            change = rate / (1 - first**count) * mean / (np.sqrt(square / (1 - second**count)) + _EPS)
            decay = rate * _DECAY if gradient.ndim > 1 else 0.0
            self.arrays[index] *= 1 - decay
            self.arrays[index] -= change
