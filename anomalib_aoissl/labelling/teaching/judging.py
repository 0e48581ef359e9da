# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""How good the page is: each painted picture predicted by a network that was fitted to the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from anomalib_aoissl.evaluation.risk_coverage import histogram, threshold_of
from anomalib_aoissl.matching.searching import search
from anomalib_aoissl.pixel_head.learning.fitting import Schedule, probabilities
from anomalib_aoissl.pixel_head.learning.sample import STEP, class_offsets, mean_iou, stored_values
from anomalib_aoissl.pixel_head.learning.stages import offset
from anomalib_aoissl.retrieval.abstention import uncertainty_of

from .lesson import Lesson, Limits
from .teacher import FIRST_STEPS, PIXELS, Drawn, Teacher, thinned

GROUPS = 12
"""Networks that are fitted at most; of more pictures, several are left out together."""

ABSTAIN = 0.05
"""Share of the labelled pixels that may be hatched as ones that the model does not know."""

_COMMON_NOVELTY = 0.99  # share of the labelled pixels, asked of the other pictures, that are not new


@dataclass(frozen=True)
class Judgement:
    """What became of pictures that were left out.

    Attributes:
        mean_iou: Mean IoU of their painted pixels, pooled, over the classes that occur.
        classes: IoU of each class; NaN where it does not occur.
        pictures: How many.
        limits: What the next lesson hatches from, and its offsets.
    """

    mean_iou: float
    classes: list[float]
    pictures: int
    limits: Limits


def judge(
    teacher: Teacher, lesson: Lesson, report: Callable[[float], Any] = lambda _: None
) -> Iterator[Judgement | None]:
    """Yield None after each network, and the judgement at last; nothing where there is one picture alone.

    Directions and standardisation of the features are those of all pictures; labels of a picture that is left out are
    never seen.
    """
    names = [name for name in lesson.names if name in teacher.drawn]
    if len(names) < 2:
        return
    drawn = [thinned(teacher.drawn[name], max(400, PIXELS // len(names)), teacher.seed) for name in names]
    number = len(lesson.classes)
    unseen: list[np.ndarray] = [np.empty(0)] * len(names)
    for group in range(min(GROUPS, len(names))):
        out = range(group, len(names), min(GROUPS, len(names)))
        others = [one for index, one in enumerate(drawn) if index not in out]
        schedule = Schedule(FIRST_STEPS, teacher.seed, report)
        layers = teacher.fit_sample(lesson.head, others, number, schedule)
        for index in out:
            unseen[index] = probabilities(layers, _standardised(lesson, drawn[index]))
        yield None
    yield _judged(teacher, lesson, drawn, np.concatenate(unseen))


def _judged(teacher: Teacher, lesson: Lesson, drawn: list[Drawn], unseen: np.ndarray) -> Judgement:
    """Return the judgement of probabilities ``[N, C]`` of drawn pixels."""
    labels, weights = (np.concatenate([getattr(one, key) for one in drawn]) for key in ("labels", "weights"))
    offsets = class_offsets(unseen, labels, weights)
    moved = offset(unseen, offsets)
    novelty = np.concatenate([_novelty(teacher, lesson, index, one) for index, one in enumerate(drawn)])
    uncertainty = uncertainty_of(torch.from_numpy(moved.max(axis=1)).float(), torch.from_numpy(novelty).float())
    whole = torch.from_numpy(np.maximum(weights, 1).round()).long()
    limits = Limits(
        uncertainty=threshold_of(histogram(uncertainty, whole), ABSTAIN),
        novelty=float(np.quantile(novelty, _COMMON_NOVELTY)),
        offsets=offsets,
    )
    found = moved.argmax(axis=1)
    number = len(lesson.classes)
    return Judgement(
        mean_iou(labels, found, weights, number), _ious(labels, found, weights, number), len(drawn), limits
    )


def _standardised(lesson: Lesson, drawn: Drawn) -> np.ndarray:
    """Return the standardised features ``[N, F]`` of drawn pixels."""
    stored = stored_values(drawn.values, lesson.head.mean.numpy(), lesson.head.scale.numpy())
    result: np.ndarray = stored.astype(np.float32) * np.float32(STEP)
    return result


def _novelty(teacher: Teacher, lesson: Lesson, index: int, drawn: Drawn) -> np.ndarray:
    """Return the novelty ``[N]`` of drawn pixels against the other pictures' patches."""
    encoder = teacher.reader.model.model.encoder
    embeddings = teacher.reader.embeddings(lesson.names[index])
    nearest = search(embeddings, lesson.bank[lesson.owners != index], 1)[0][:, 0]
    rows, columns = (drawn.points[:, axis] // encoder.patch_size[axis] for axis in (0, 1))
    values: np.ndarray = (1 - nearest).reshape(*encoder.grid_size)[rows, columns].numpy()
    return values


def _ious(labels: np.ndarray, found: np.ndarray, weights: np.ndarray, classes: int) -> list[float]:
    """Return the IoU of each class; NaN where it does not occur."""
    result = []
    for index in range(classes):
        union = weights[(labels == index) | (found == index)].sum()
        result.append(float(weights[(labels == index) & (found == index)].sum() / union) if union else float("nan"))
    return result


def taken(teacher: Teacher, judgement: Judgement) -> None:
    """Have the teacher's next lessons hatch and decide as the judgement says."""
    teacher.limits = replace(judgement.limits)
