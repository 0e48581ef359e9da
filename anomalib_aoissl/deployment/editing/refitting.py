# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The pixel head of an exported model, fitted on to other labelled pixels; needs no torch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from anomalib_aoissl.bank.content import BankArrays
from anomalib_aoissl.pixel_head.learning.sample import PixelSample, spread_context
from anomalib_aoissl.pixel_head.learning.stages import refitted, with_classes
from anomalib_aoissl.pixel_head.learning.views import view
from anomalib_aoissl.pixel_head.points import context_values, draw_points, pixel_values
from anomalib_aoissl.pixel_head.stored import stored_values

from ..graph.head import HeadContent

logger = logging.getLogger(__name__)

VIEWS = 4
"""Views of an image that is learned on the line."""

_FEATURES, _CONTEXT = ("fine_features", "coarse_features", "anomaly_map"), ("first_probabilities", "context_maps")


def learning_outputs(head: HeadContent) -> list[str]:
    """Return the names of the tensors that `labelled_pixels` reads."""
    return [*_FEATURES, *(_CONTEXT if head.stages.second else ())]


def labelled_pixels(
    run: Callable[[Any], Any],
    planes: np.ndarray,
    mask: np.ndarray,
    head: HeadContent,
    classes: int,
    seed: int,
    fold: int,
    light: Callable[[int, np.random.Generator], Sequence[np.ndarray]] | None = None,
    number: int = 0,
) -> PixelSample:
    """Return the labelled pixels of an image that a head is fitted to.

    Args:
        run: Images ``[B, C, H, W]`` to the tensors of `learning_outputs`, in their order.
        planes: The image ``[C, H, W]`` in [0, 1] of the model's size.
        mask: ``[H, W]`` uint8 class indices, 255 is ignored.
        head: The head.
        classes: Classes of the mask, the head's first.
        seed: Of what is random.
        fold: The part of the images that it is left out of a fit with.
        light: The number of a view, and what it is drawn from, to further inputs of ``run``; None for none.
        number: Labelled pixels to draw; 0 for as many as of each image of the head.
    """
    parts, number = [], number or head.per_image
    for index in range(VIEWS):
        random = np.random.default_rng([seed, index])
        inputs = [] if light is None else light(index, np.random.default_rng([seed, index]))
        image, labels = view(planes, mask, index, random, head.varied)
        points, weights = draw_points(labels, max(1, number // VIEWS), random)
        seen = image[np.newaxis]
        outputs = [np.asarray(tensor)[0] for tensor in run([seen, *inputs] if inputs else seen).to_tuple()]
        read: Mapping[str, np.ndarray] = dict(zip(learning_outputs(head), outputs, strict=True))
        values = pixel_values(read["fine_features"], read["coarse_features"], points)
        context = np.empty((len(points), 0), np.int8)
        if head.stages.second:
            known = context_values(read["first_probabilities"], read["context_maps"], points)
            context = spread_context(known, range(head.stages.classes), classes)
        novelty = read["anomaly_map"][0][points[:, 0], points[:, 1]]
        ids = np.zeros(len(points), np.int32)
        parts.append(
            PixelSample(
                values=stored_values(values, head.mean, head.scale),
                labels=labels[points[:, 0], points[:, 1]],
                device_ids=ids,
                image_ids=ids,
                weights=weights,
                novelty=np.where(index == 0, novelty, np.nan).astype(np.float32),
                folds=np.full(len(points), fold, np.uint8),
                context=context,
                basis=head.basis,
            )
        )
    whole = parts[0]
    for part in parts[1:]:
        whole = whole.joined(part)
    return whole


def refitted_head(head: HeadContent, bank: BankArrays, seed: int, refit: bool = True) -> HeadContent:
    """Return the head, fitted on to the labelled pixels of a bank, whose classes may be more than the head's.

    Without ``refit`` new classes are unlikely, and what the head says stays as it was but for single pixels. So it is
    with fewer than two classes, which is warned of.
    """
    classes, pixels = len(bank.class_names), bank.pixels
    shown = 0 if pixels is None else len(np.unique(pixels.labels))
    if refit and (pixels is None or shown < 2):
        logger.warning(
            "The pixel head is not fitted again: the bank has labelled pixels of %d class(es), 2 are needed. "
            "Only vote and novelty change. Train on labelled images, and export.",
            shown,
        )
    if not refit or pixels is None or shown < 2:
        return replace(head, stages=with_classes(head.stages, classes))
    return replace(head, stages=refitted(head.stages, pixels, classes, seed))
