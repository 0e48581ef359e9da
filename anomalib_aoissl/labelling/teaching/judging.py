# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""How good the page is: each painted picture predicted by a model of the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from anomalib_aoissl.deployment.abstaining import uncertainty_of
from anomalib_aoissl.evaluation.risk_coverage import histogram, threshold_of
from anomalib_aoissl.pixel_head.learning.fitting import Schedule, probabilities
from anomalib_aoissl.pixel_head.learning.sample import class_ious, class_offsets
from anomalib_aoissl.pixel_head.learning.stages import offset
from anomalib_aoissl.pixel_head.stored import STEP, stored_values
from anomalib_aoissl.retrieval.calibration import without_images
from anomalib_aoissl.retrieval.torch_model import RetrievalModel, joint_probabilities

from .lesson import HatchingThresholds, Lesson
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
    limits: HatchingThresholds


class Unseen(NamedTuple):
    """What models say of drawn pixels of pictures that they were not fitted to."""

    head: np.ndarray  # [N, C] class probabilities, without offsets
    vote: np.ndarray  # [N, C]
    novelty: np.ndarray  # [N]


def judge(
    teacher: Teacher, lesson: Lesson, report: Callable[[float], Any] = lambda _: None
) -> Iterator[Judgement | None]:
    """Yield None after each network, and the judgement at last; nothing where there is one picture alone.

    Head and vote decide together. Directions and standardisation of the features are those of all pictures; labels of
    a picture that is left out are never seen.
    """
    names = [name for name in lesson.names if name in teacher.drawn]
    if len(names) < 2:
        return
    drawn = [thinned(teacher.drawn[name], max(400, PIXELS // len(names))) for name in names]
    unseen: list[Unseen | None] = [None] * len(names)
    for group in range(min(GROUPS, len(names))):
        out = range(group, len(names), min(GROUPS, len(names)))
        others = [one for index, one in enumerate(drawn) if index not in out]
        schedule = Schedule(FIRST_STEPS, report=report)
        layers = teacher.fit_sample(lesson.head, others, len(lesson.classes), schedule)
        asked = without_images(lesson.model, [names[index] for index in out])
        for index in out:
            head = probabilities(layers, _standardised(lesson, drawn[index]))
            embeddings = teacher.reader.embeddings(names[index])
            unseen[index] = Unseen(head, *_asked(asked, embeddings, drawn[index].points))
        yield None
    yield _judged(lesson, drawn, Unseen(*map(np.concatenate, zip(*unseen, strict=True))))  # type: ignore[arg-type]


def _asked(model: RetrievalModel, embeddings: torch.Tensor, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the vote's class probabilities ``[N, C]`` and the novelty ``[N]`` at points ``[N, 2]`` of a picture."""
    votes, novelty = model.ask(embeddings[None])
    rows, columns = points.T
    patch = model.patch_size
    vote: np.ndarray = model.pixel_probabilities(votes)[0, :, rows, columns].T.numpy()
    new: np.ndarray = novelty[0, 0, rows // patch[0], columns // patch[1]].numpy()
    return vote, new


def _judged(lesson: Lesson, drawn: list[Drawn], unseen: Unseen) -> Judgement:
    """Return the judgement of drawn pixels from what is said of them."""
    labels, weights = (np.concatenate([getattr(one, key) for one in drawn]) for key in ("labels", "weights"))
    offsets = class_offsets(unseen.head, labels, weights)  # the head's own, as in a full fit
    moved = torch.from_numpy(offset(unseen.head, offsets))
    joint = joint_probabilities(moved.float(), torch.from_numpy(unseen.vote))
    share, found = (values.numpy() for values in joint.max(dim=1))
    uncertainty = uncertainty_of(torch.from_numpy(share), torch.from_numpy(unseen.novelty))
    whole = torch.from_numpy(np.maximum(weights, 1).round()).long()
    limits = HatchingThresholds(
        uncertainty=threshold_of(histogram(uncertainty, whole), ABSTAIN),
        novelty=float(np.quantile(unseen.novelty, _COMMON_NOVELTY)),
        offsets=offsets,
    )
    ious = class_ious(labels, found, weights, len(lesson.classes))
    return Judgement(float(np.nanmean(ious)), ious.tolist(), len(drawn), limits)


def _standardised(lesson: Lesson, drawn: Drawn) -> np.ndarray:
    """Return the standardised features ``[N, F]`` of drawn pixels."""
    stored = stored_values(drawn.values, lesson.head.mean.numpy(), lesson.head.scale.numpy())
    result: np.ndarray = stored.astype(np.float32) * np.float32(STEP)
    return result
