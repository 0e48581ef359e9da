# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The head's two networks as numpy arrays, fitted to a sample of pixels: in training, and again on the line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ..stored import STEP, Layers
from .fitting import Schedule, fit_network, probabilities
from .sample import PixelSample

STEPS, REFIT_STEPS = 2000, 300
"""Steps of a fit, and of one that goes on from the present networks."""


_UNLIKELY = -4.0
"""Score of a class that a network has not been fitted to: little probability, and slope enough to learn from there."""


@dataclass(frozen=True)
class Stages:
    """The networks of a head.

    Attributes:
        first: Layers of the network over fine and coarse features.
        second: Layers of the network that sees the first one's probabilities too; none without autocontext.
        offsets: ``[C]``, added to the classes' scores at last, see `sample.class_offsets`.
        fine: Fine features.
        tokens: Features that are projected tokens, the last of the coarse ones.
    """

    first: Layers
    second: Layers
    offsets: np.ndarray
    fine: int
    tokens: int

    @property
    def classes(self) -> int:
        """Classes that are told apart."""
        return len(self.first[-1])


def fit_first(sample: PixelSample, classes: int, layout: Stages, schedule: Schedule) -> Layers:
    """Return the first network, fitted to a sample; it goes on from that of the layout where there is one."""
    features = sample.values.shape[1]
    tokens = slice(features - layout.tokens, features)
    start = layout.first or None
    return fit_network(sample.values, sample.labels, classes, scale=STEP, tokens=tokens, start=start, schedule=schedule)


def fit_second(sample: PixelSample, classes: int, layout: Stages, schedule: Schedule) -> Layers:
    """Return the second network, fitted to a sample with context; it goes on from that of the layout."""
    features = classes + sample.values.shape[1]
    tokens = slice(features - layout.tokens, features)
    inputs, start = second_inputs(sample, classes, layout.fine), layout.second or None
    return fit_network(inputs, sample.labels, classes, scale=STEP, tokens=tokens, start=start, schedule=schedule)


def second_inputs(sample: PixelSample, classes: int, fine: int) -> np.ndarray:
    """Return the second network's inputs: fine features, probabilities, coarse features, blurred probabilities."""
    values, context = sample.values, sample.context
    return np.concatenate([values[:, :fine], context[:, :classes], values[:, fine:], context[:, classes:]], axis=1)


def first_probabilities(layers: Layers, sample: PixelSample) -> np.ndarray:
    """Return the first network's class probabilities ``[N, C]`` of a sample."""
    return probabilities(layers, sample.values.astype(np.float32) * np.float32(STEP))


def second_probabilities(layers: Layers, fine: int, sample: PixelSample) -> np.ndarray:
    """Return the second network's class probabilities ``[N, C]`` of a sample with context."""
    inputs = second_inputs(sample, len(layers[-1]), fine)
    return probabilities(layers, inputs.astype(np.float32) * np.float32(STEP))


def each_unseen(sample: PixelSample, networks: Sequence[Callable[[PixelSample], np.ndarray]]) -> np.ndarray:
    """Return the class probabilities ``[N, C]`` of each pixel by the network of its fold, in the order of the folds."""
    folds, parts = sample.folds, np.unique(sample.folds)
    results = [network(sample.chosen(folds == fold)) for fold, network in zip(parts, networks, strict=True)]
    result = np.empty((len(sample), results[0].shape[1]), np.float32)
    for fold, values in zip(parts, results, strict=True):
        result[folds == fold] = values
    return result


def offset(probabilities: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return class probabilities ``[N, C]`` with offsets ``[C]`` added to the scores that they are the softmax of."""
    moved = probabilities * np.exp(offsets)
    return moved / moved.sum(axis=1, keepdims=True)


def left_out_probabilities(stages: Stages, sample: PixelSample) -> np.ndarray:
    """Return the class probabilities ``[N, C]`` of each pixel by networks that are fitted to other folds.

    Where there is one fold alone, by the present ones.
    """
    folds = sample.folds
    parts, fresh, schedule = np.unique(folds), replace(stages, first=(), second=()), Schedule(STEPS, 0)
    others = [sample.chosen(folds != fold) for fold in parts] if len(parts) > 1 else []
    classes = stages.classes
    if stages.second:
        networks = [fit_second(other, classes, fresh, schedule) for other in others] or [stages.second]
        unseen = each_unseen(sample, [partial(second_probabilities, layers, stages.fine) for layers in networks])
    else:
        networks = [fit_first(other, classes, fresh, schedule) for other in others] or [stages.first]
        unseen = each_unseen(sample, [partial(first_probabilities, layers) for layers in networks])
    return offset(unseen, stages.offsets)


def refitted(stages: Stages, sample: PixelSample, classes: int, seed: int = 0) -> Stages:
    """Return the networks, fitted on to another sample; whether there is autocontext stays.

    Args:
        stages: The present networks.
        sample: Labelled pixels; with context where there is a second network.
        classes: Classes that are told apart from now on; new ones come after the present ones.
        seed: Of what is random.
    """
    grown = with_classes(stages, classes)
    schedule = Schedule(REFIT_STEPS, seed)
    first = fit_first(sample, classes, grown, schedule)
    second = fit_second(sample, classes, grown, schedule) if stages.second else ()
    return replace(grown, first=first, second=second)


def with_classes(stages: Stages, classes: int) -> Stages:
    """Return the networks with outputs for more classes, which are unlikely, and inputs for their probabilities."""
    new = classes - stages.classes
    if not new:
        return stages
    first, second = _with_outputs(stages.first, new), stages.second
    offsets = np.concatenate([stages.offsets, np.zeros(new, np.float32)])
    if second:
        second = _with_outputs(second, new)
        known, weight = stages.classes, second[0]
        ends = [stages.fine + known, len(stages.first[0]) + known]
        fine, coarse, context = np.split(weight, ends)
        none = np.zeros((new, weight.shape[1]), np.float32)
        blurred = [part for block in np.split(context, len(context) // known) for part in (block, none)]
        second = (np.concatenate([fine, none, coarse, *blurred]), *second[1:])
    return replace(stages, first=first, second=second, offsets=offsets)


def _with_outputs(layers: Layers, new: int) -> Layers:
    """Return a network with so many unlikely outputs more."""
    weight = np.concatenate([layers[-2], np.zeros((len(layers[-2]), new), np.float32)], axis=1)
    return (*layers[:-2], weight, np.concatenate([layers[-1], np.full(new, _UNLIKELY, np.float32)]))
