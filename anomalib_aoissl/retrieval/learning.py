# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""A condensed bank's rows, moved so that the bank's own vote gives the labelled patches their labels."""

from __future__ import annotations

import logging

import numpy as np
import torch
from torch.nn import functional

from anomalib_aoissl.data.indices import IGNORE_INDEX

from .aggregation import NEIGHBOURS, TEMPERATURE
from .condensing import Rows, balancing_weights, classes_in
from .searching import search

logger = logging.getLogger(__name__)

SECONDS = 30.0
"""Seconds of one thread that learning may take where nothing is said."""

_WORK = 1e11
"""Multiplications and additions of a second, so that what is learned does not depend on the machine's speed."""

_SCATTERED = 250
"""Multiplications of a matrix product in the time that one number of a row takes that is looked up and corrected."""

_STEPS = 800, 400, 200, 100, 50
_LOOKS = 15  # at each of the patches, at most; more of them changed little
_ASKED, _FEWEST_ASKED = 1.5, 1.0
"""Times that a row is asked in a step, on average: fewer steps are taken rather than less than the first, and none
where it would be less than the second. Adam moves a row by about its rate in each step, whatever the evidence: a large
bank whose rows are rarely asked is worse after many steps than after few, or none."""

_PATCHES_OF_ROW, _FEWEST_ROWS = 3, 2048
"""Patches for each row that a learned bank has at least, if it has more than so many rows: it is better than one of all
patches then. Below the fewest rows nothing is gained that would be worth it."""

_RATE, _LABEL_RATE = 0.01, 0.1  # of Adam; they fall linearly to zero
_HOLD = 0.05  # weight of the cosine distance to where a row was: novelty is to stay a distance to labelled patches
_CERTAINTY = 0.05  # added to the labels' one-hot shares before the logarithm: labels start likely, not certain
_LABEL_LIMIT = 2**23  # scores of labels that are learned at once: 128 MiB with Adam's state


@torch.inference_mode(False)  # the bank is finished where validation starts, without gradients
def learned(
    rows: Rows, kept: np.ndarray, counts: np.ndarray, generator: torch.Generator, seconds: float = SECONDS
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return embeddings ``[K, D]`` of unit length and labels ``[K, L]`` uint8 of the kept rows after learning.

    Descends, with Adam, the cross entropy of the pixels' labels under the bank's vote: each patch, drawn by
    `balancing_weights`, asks the rows that are nearest to it, as a query asks the bank. The rows start where they are,
    so that each still stands for patches like its own; how far they go depends on the work that is allowed. This is
    learning vector quantization with soft assignments [0]; differs in that a row has a label for each pixel, and that
    labels are learned too. Where the seconds do not pay for it, the patches stay.

    Pixels that are ignored in a row stay ignored, and no class vanishes: rows of a class that no label names any more
    stay as they were. The same seed gives the same rows.

    [0]: Seo, Obermayer, Soft Learning Vector Quantization, 2003, 10.1162/089976603321891819.

    Args:
        rows: All rows, with embeddings of unit length.
        kept: ``[K]``, indices of the kept ones.
        counts: ``[K]``, patches that each of them stands for.
        generator: Of the drawn patches.
        seconds: Of one thread of a processor of some 100 GFLOPS, estimated; 0 leaves the patches as they are.
    """
    all_embeddings, all_labels = torch.from_numpy(rows.embeddings), torch.from_numpy(rows.labels)
    start, labels = all_embeddings[kept], all_labels[kept]
    classes, scale = rows.classes, labels.shape[1] * len(rows.classes)
    steps, batch = _plan(seconds * _WORK, len(all_labels), len(kept), start.shape[1], scale)
    if not batch or len(classes) < 2:
        return start, labels
    vote = Vote(start, _one_hot(labels, classes), torch.from_numpy(counts))
    vote.scores.requires_grad_(len(kept) * scale <= _LABEL_LIMIT)
    groups = [{"params": [vote.points], "lr": _RATE}, {"params": [vote.scores], "lr": _LABEL_RATE}]
    optimizer, chances = torch.optim.Adam(groups), torch.from_numpy(balancing_weights(rows))
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    for step in range(steps):
        if step % (steps // 5) == 0:
            logger.info("Learning %d rows from %d patches: %d %%.", len(kept), len(all_labels), 100 * step // steps)
        drawn = torch.multinomial(chances, batch, replacement=True, generator=generator)
        with torch.enable_grad():
            loss = vote.loss(all_embeddings[drawn], _one_hot(all_labels[drawn], classes))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    named = torch.tensor(classes, dtype=torch.uint8)[vote.scores.detach().argmax(dim=1)]  # [K, L]
    return _with_all_classes(start, labels, vote.points.detach(), named, classes)


def learned_size(labels: torch.Tensor, counts: torch.Tensor, dims: int, budget: int, seconds: float) -> int:
    """Return how many rows a bank has after learning: a third of its patches, where that is less than the budget.

    Args:
        labels: ``[N, L]``, those of all rows.
        counts: ``[N]``, patches that each row stands for.
        dims: D, of an embedding.
        budget: Rows at most; returned where learning would not pay.
        seconds: As of `learned`.
    """
    size = max(int(counts.sum()) // _PATCHES_OF_ROW, _FEWEST_ROWS)
    if size >= min(budget, len(labels)):
        return budget
    scores = labels.shape[1] * len(classes_in(labels.cpu().numpy()))
    return size if _plan(seconds * _WORK, len(labels), size, dims, scores)[1] else budget


def _plan(work: float, patches: int, kept: int, dims: int, scores: int) -> tuple[int, int]:
    """Return how many steps to take, and how many of the patches ask in each; none where learning does not pay.

    A step changes all numbers of all rows; each patch in it is compared with all rows, and changes its neighbours.
    Where most of the patches are rows themselves, each would find itself, and nothing would be learned.
    """
    if patches < 2 * kept:
        return 0, 0
    of_step = 2 * _SCATTERED * kept * (dims + scores)
    neighbours = min(NEIGHBOURS, kept)
    of_patch = 2 * kept * dims + _SCATTERED * neighbours * (dims + scores)
    for steps in _STEPS:
        batch = int(min(_LOOKS * patches, max(work - steps * of_step, 0) / of_patch)) // steps
        if neighbours * batch >= _ASKED * kept:
            break
    return steps, batch if neighbours * batch >= _FEWEST_ASKED * kept else 0


class Vote:
    """The vote of the nearest rows of a bank as a function that can be descended.

    Args:
        start: ``[K, D]``, embeddings of unit length that the rows start from.
        labels: ``[K, C, L]`` floats, 1 for the class of a pixel and 0 for others; pixels without any do not vote.
        counts: ``[K]``, patches that each row stands for; it votes as often as their square root.
    """

    def __init__(self, start: torch.Tensor, labels: torch.Tensor, counts: torch.Tensor) -> None:
        self.start, self.points = start, start.clone().requires_grad_()
        self.scores = (labels + _CERTAINTY).log()
        self.voting = labels.sum(dim=1, keepdim=True)  # [K, 1, L]
        self.votes = 0.5 * counts.float().log()

    def loss(self, queries: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the mean cross entropy of the labelled pixels, and how far the rows are from their start.

        Args:
            queries: ``[B, D]`` of unit length.
            targets: ``[B, C, L]``, as ``labels``.
        """
        moved = functional.normalize(self.points, dim=1)
        with torch.no_grad():
            nearest = search(queries, moved, NEIGHBOURS)[1]  # [B, k]
        similarities = (functional.embedding(nearest, moved) @ queries.unsqueeze(2)).squeeze(2)  # [B, k]
        weights = torch.softmax(similarities / TEMPERATURE + self.votes[nearest], dim=1)
        labels = (torch.softmax(self.scores, dim=1) * self.voting).flatten(1)  # [K, C * L]
        shares = functional.embedding_bag(nearest, labels, per_sample_weights=weights, mode="sum").clamp(min=1e-4)
        entropy = -(targets.flatten(1) * shares.log()).sum() / targets.sum().clamp(min=1.0)
        return entropy + _HOLD * (1 - (moved * self.start).sum(dim=1)).mean()


def _with_all_classes(
    start: torch.Tensor, before: torch.Tensor, points: torch.Tensor, after: torch.Tensor, classes: list[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the learned rows, and as they were those of classes that would vanish; ignored pixels stay ignored."""
    after = torch.where(before == IGNORE_INDEX, before, after)
    embeddings = functional.normalize(points, dim=1)
    for index in classes:
        if not bool((after == index).any()):
            rows = (before == index).any(dim=1)
            after[rows], embeddings[rows] = before[rows], start[rows]
    return embeddings, after


def _one_hot(labels: torch.Tensor, classes: list[int]) -> torch.Tensor:
    """Return floats ``[N, C, L]`` that say which of the classes each label is; ignored is none of them."""
    return torch.stack([labels == index for index in classes], dim=1).float()
