# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""A condensed bank's rows, moved so that the bank's own vote gives the labelled patches their labels."""

from __future__ import annotations

import logging

import numpy as np
import torch
from torch.nn import functional

from anomalib_aoissl.data.indices import IGNORE_INDEX

from .condensing import Rows, balancing_weights

logger = logging.getLogger(__name__)

TEMPERATURE = 0.02
"""Of the softmax over the similarities while learning; that of the model's vote where none is said."""

WORK = 1.6e12
"""Multiplications and additions that learning may take, some twenty seconds of one thread, whatever the bank's size."""

_STEPS = 200, 400  # few where little work is allowed, else more
_BATCH = 4096  # with more patches in a step there are more steps
_LOOKS = 15  # at each of the patches, at most; more of them changed nothing
_FEWEST_ASKED = 16
"""Patches for each row that are worth learning from. Adam moves a row by about its rate in each step, whatever the
evidence: a large bank, of which few steps can be paid for and each row is rarely asked, is worse after them."""

_RATE, _LABEL_RATE = 0.01, 0.1  # of Adam; they fall linearly to zero
_HOLD = 0.05  # weight of the cosine distance to where a row was: novelty is to stay a distance to labelled patches
_CERTAINTY = 0.05  # added to the labels' one-hot shares before the logarithm: labels start likely, not certain
_LABEL_LIMIT = 2**23  # scores of labels that are learned at once: 128 MiB with Adam's state


@torch.inference_mode(False)  # the bank is finished where validation starts, without gradients
def learned(
    rows: Rows, kept: np.ndarray, counts: np.ndarray, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return embeddings ``[K, D]`` of unit length and labels ``[K, L]`` uint8 of the kept rows after learning.

    Descends, with Adam, the cross entropy of the pixels' labels under the bank's vote: each patch, drawn by
    `balancing_weights`, asks all K rows, as a query asks the bank. The rows start where they are, so that each still
    stands for patches like its own; how far they go depends on the work that is allowed. This is learning vector
    quantization with soft assignments [0]; differs in that a row has a label for each pixel, and that labels are
    learned too. Where `WORK` does not allow `_FEWEST_ASKED`, in a bank of more than some 5,000 rows, the patches stay.

    Pixels that are ignored in a row stay ignored, and no class vanishes: rows of a class that no label names any more
    stay as they were. The same seed gives the same rows.

    [0]: Seo, Obermayer, Soft Learning Vector Quantization, 2003, 10.1162/089976603321891819.

    Args:
        rows: All rows, with embeddings of unit length.
        kept: ``[K]``, indices of the kept ones.
        counts: ``[K]``, patches that each of them stands for.
        generator: Of the drawn patches.
    """
    all_embeddings, all_labels = torch.from_numpy(rows.embeddings), torch.from_numpy(rows.labels)
    start, labels = all_embeddings[kept], all_labels[kept]
    classes = [c for c in all_labels.unique().tolist() if c != IGNORE_INDEX]
    scale = labels.shape[1] * len(classes)
    asked = min(_LOOKS * len(all_labels), int(WORK / (6 * len(kept) * (start.shape[1] + scale))))
    if asked < _FEWEST_ASKED * len(kept) or len(classes) < 2:
        return start, labels
    steps = min(max(asked // _BATCH, _STEPS[0]), _STEPS[1])
    batch = max(asked // steps, 1)
    logger.info("Learning %d rows from %d patches.", len(kept), len(all_labels))
    vote = Vote(start, _one_hot(labels, classes), torch.from_numpy(counts))
    vote.scores.requires_grad_(len(kept) * scale <= _LABEL_LIMIT)
    groups = [{"params": [vote.points], "lr": _RATE}, {"params": [vote.scores], "lr": _LABEL_RATE}]
    optimizer, chances = torch.optim.Adam(groups), torch.from_numpy(balancing_weights(rows))
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    for _ in range(steps):
        drawn = torch.multinomial(chances, batch, replacement=True, generator=generator)
        with torch.enable_grad():
            loss = vote.loss(all_embeddings[drawn], _one_hot(all_labels[drawn], classes))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    named = torch.tensor(classes, dtype=torch.uint8)[vote.scores.detach().argmax(dim=2)]  # [K, L]
    return _with_all_classes(start, labels, vote.points.detach(), named, classes)


class Vote:
    """The vote of all rows of a bank as a function that can be descended.

    Args:
        start: ``[K, D]``, embeddings of unit length that the rows start from.
        labels: ``[K, L, C]`` floats, 1 for the class of a pixel and 0 for others; pixels without any do not vote.
        counts: ``[K]``, patches that each row stands for; it votes as often as their square root.
    """

    def __init__(self, start: torch.Tensor, labels: torch.Tensor, counts: torch.Tensor) -> None:
        self.start, self.points = start, start.clone().requires_grad_()
        self.scores = (labels + _CERTAINTY).log()
        self.voting = labels.sum(dim=2, keepdim=True)  # [K, L, 1]
        self.votes = 0.5 * counts.float().log()

    def loss(self, queries: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the mean cross entropy of the labelled pixels, and how far the rows are from their start.

        Args:
            queries: ``[B, D]`` of unit length.
            targets: ``[B, L, C]``, as ``labels``.
        """
        moved = functional.normalize(self.points, dim=1)
        weights = torch.softmax(queries @ moved.T / TEMPERATURE + self.votes, dim=1)  # [B, K]
        labels = torch.softmax(self.scores, dim=2) * self.voting
        shares = (weights @ labels.flatten(1)).clamp(min=1e-4)  # [B, L * C]
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
    """Return floats ``[N, L, C]`` that say which of the classes each label is; ignored is none of them."""
    return torch.stack([labels == index for index in classes], dim=2).float()
