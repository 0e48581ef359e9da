# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""A condensed bank's rows, moved so that the bank's own vote gives the labelled patches their labels."""

from __future__ import annotations

import logging
import warnings
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional

from anomalib_aoissl.data.indices import IGNORE_INDEX

from .aggregation import NEIGHBOURS, TEMPERATURE
from .condensing import Rows, balancing_weights, classes_in
from .searching import search

logger = logging.getLogger(__name__)

SECONDS = 25.0
"""Seconds of one thread that learning may take where nothing is said."""

_WORK = 1e11
"""Multiplications and additions of a second, so that what is learned does not depend on the machine's speed."""

_CORRECTED, _LOOKED_UP = 500, 90
"""Multiplications of a matrix product in the time that one number of a row takes that is corrected in a step, and one
of a neighbour that is asked."""

_SEEN = 96
"""Dimensions in which the rows nearest to a patch are looked for; how similar they are is then computed in all. Rows of
real images had 99.2 % or more of their squared length in 96 of 384 dimensions, where 98 % of the nearest were found."""

_FEW_ROWS = 1024
"""Rows up to which it is faster to look for the nearest in all dimensions."""

_STEPS = 3200, 1600, 800, 400, 200, 100, 50
_MOST_STEPS, _LOOKS = 800, 15
"""Steps, and looks at each of the patches, at most, in the usual seconds; in more seconds as many times more. More of
one without the other changed little."""

_ASKED, _FEWEST_ASKED = 1.5, 1.0
"""Times that a row is asked in a step, on average: fewer steps are taken rather than less than the first, and none
where it would be less than the second. Adam moves a row by about its rate in each step, whatever the evidence: a large
bank whose rows are rarely asked is worse after many steps than after few, or none."""

_PATCHES_OF_ROW, _FEWEST_ROWS = 3, 2048
"""Patches for each row that a learned bank has at least, if it has more than so many rows: it is better than one of all
patches then. Below the fewest rows nothing is gained that would be worth it."""

_RATE, _LABEL_RATE = 0.01, 0.1  # of Adam; they fall linearly to zero
_WARMTH, _WARM = 4.0, 0.75
"""The vote begins at so many times its temperature and falls to it, geometrically, in this part of the steps: rows that
are far from a patch are asked in earnest too, and fewer of them end where none of their neighbours needs them."""

_WARM_PATCHES = 5
"""Patches for each row from which the vote begins warm. Of three, as in a bank of one image, a row learns too much of
what it alone is asked for: a warm beginning took a point from new images there."""

_HOLD = 0.02  # weight of the cosine distance to where a row was: novelty is to stay a distance to labelled patches
_CERTAINTY = 0.05  # added to the labels' one-hot shares before the logarithm: labels start likely, not certain
_LEAST_SHARE = 1e-4  # of a vote; one that is less has no slope, as its logarithm would be all of the loss
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
    labels are learned too. In step i of n the temperature is t 4^max(1 - i / 0.75n, 0), t the bank's own, as in
    deterministic annealing [1]; with few patches for each row it is t from the start. Where the seconds do not pay for
    it, the patches stay.

    Pixels that are ignored in a row stay ignored, and no class vanishes: rows of a class that no label names any more
    stay as they were. The same seed gives the same rows.

    [0]: Seo, Obermayer, Soft Learning Vector Quantization, 2003, 10.1162/089976603321891819.
    [1]: Rose, Deterministic Annealing for Clustering, Compression, Classification, 1998, 10.1109/5.726788.

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
    learn_labels = len(kept) * scale <= _LABEL_LIMIT
    vote = Vote(start, _one_hot(labels, classes), torch.from_numpy(counts), learn_labels)
    groups = [{"params": [vote.points], "lr": _RATE}, {"params": [vote.scores], "lr": _LABEL_RATE}]
    optimizer, chances = torch.optim.Adam(groups, fused=True), torch.from_numpy(balancing_weights(rows))
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    warmth = _WARMTH if len(all_labels) >= _WARM_PATCHES * len(kept) else 1.0
    for step in range(steps):
        vote.temperature = TEMPERATURE * warmth ** max(1 - step / (_WARM * steps), 0.0)
        if step % (steps // 5) == 0:
            logger.info("Learning %d rows from %d patches: %d %%.", len(kept), len(all_labels), 100 * step // steps)
        drawn = torch.multinomial(chances, batch, replacement=True, generator=generator)
        vote.slopes(all_embeddings[drawn], _one_hot(all_labels[drawn], classes))
        optimizer.step()
        schedule.step()
    named = torch.tensor(classes, dtype=torch.uint8)[vote.scores.argmax(dim=1)]  # [K, L]
    return _with_all_classes(start, labels, vote.points, named, classes)


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
    of_step = _CORRECTED * kept * (dims + scores)
    neighbours = min(NEIGHBOURS, kept)
    of_patch = 2 * kept * _seen(kept, dims) + _LOOKED_UP * neighbours * (dims + scores)
    more = max(work / (SECONDS * _WORK), 1.0)
    for steps in (steps for steps in _STEPS if steps <= _MOST_STEPS * more):
        batch = int(min(_LOOKS * more * patches, max(work - steps * of_step, 0) / of_patch)) // steps
        if neighbours * batch >= _ASKED * kept:
            break
    return steps, batch if neighbours * batch >= _FEWEST_ASKED * kept else 0


class Vote:
    """The vote of the nearest rows of a bank, and the slopes along which its loss falls.

    The gradients are written out, since what autograd keeps of each neighbour of each patch, a copy of its row and one
    of its labels, takes most of a step's time. With the weight w_j of neighbour j, a softmax of its similarity s_j over
    the temperature t, the share of the vote p = sum_j w_j l_j and the entropy's slope g = dE/dp:

        dE/dl_j = w_j g    and    dE/ds_j = w_j (g l_j - sum_i w_i g l_i) / t

    Args:
        start: ``[K, D]``, embeddings of unit length that the rows start from.
        labels: ``[K, C, L]`` floats, 1 for the class of a pixel and 0 for others; pixels without any do not vote.
        counts: ``[K]``, patches that each row stands for; it votes as often as their square root.
        learn_labels: Whether the labels are learned too.

    Its ``temperature`` is that of the bank, unless another is set.
    """

    def __init__(
        self, start: torch.Tensor, labels: torch.Tensor, counts: torch.Tensor, learn_labels: bool = True
    ) -> None:
        self.start, self.points, self.temperature = start, start.clone(), TEMPERATURE
        self.scores, self.learn_labels = (labels + _CERTAINTY).log(), learn_labels
        self.voting = labels.sum(dim=1, keepdim=True)  # [K, 1, L]
        self.votes = 0.5 * counts.float().log()
        self.seen = strongest_directions(start, _seen(*start.shape))  # [D, d]
        self._read_scores()

    def loss(self, queries: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the mean cross entropy of the labelled pixels, and how far the rows are from their start.

        Args:
            queries: ``[B, D]`` of unit length.
            targets: ``[B, C, L]``, as ``labels``.
        """
        shares = self._ask(queries).shares.clamp(min=_LEAST_SHARE)
        entropy = -(targets.flatten(1) * shares.log()).sum() / targets.sum().clamp(min=1.0)
        return entropy + _HOLD * (1 - (functional.normalize(self.points, dim=1) * self.start).sum(dim=1)).mean()

    def slopes(self, queries: torch.Tensor, targets: torch.Tensor) -> None:
        """Leave the gradients of the loss in ``points.grad`` and, where labels are learned, in ``scores.grad``.

        Args:
            queries: ``[B, D]`` of unit length.
            targets: ``[B, C, L]``, as ``labels``.
        """
        asked = self._ask(queries)
        too_small, pixels = asked.shares < _LEAST_SHARE, targets.sum().clamp(min=1.0)
        # In place, here and below: new memory of this size costs more than what is computed in it.
        falls = asked.shares.mul_(-pixels).reciprocal_().mul_(targets.flatten(1)).masked_fill_(too_small, 0.0)  # g
        gains = picked_products(falls, self.labels, asked.nearest)  # g l_j, [B, k]
        pulls = asked.weights * (gains - (asked.weights * gains).sum(dim=1, keepdim=True)) / self.temperature
        back = _Backwards(asked.nearest, len(self.start))
        along = back.sums(pulls, queries).sub_(self.start, alpha=_HOLD / len(self.start))  # of rows of unit length
        along.addcmul_(asked.moved, torch.linalg.vecdot(along, asked.moved).unsqueeze(1), value=-1)
        self.points.grad = along.div_(self.points.norm(dim=1, keepdim=True))
        if self.learn_labels:
            likely = back.sums(asked.weights, falls).view_as(self.chances).mul_(self.voting).mul_(self.chances)
            self.scores.grad = likely.addcmul_(self.chances, likely.sum(dim=1, keepdim=True), value=-1)

    def _ask(self, queries: torch.Tensor) -> _Asked:
        """Return what the rows, as they are now, say of the queries."""
        moved = functional.normalize(self.points, dim=1)
        if self.seen is None:
            similarities, nearest = search(queries, moved, NEIGHBOURS)
        else:
            nearest = search(queries @ self.seen, moved @ self.seen, NEIGHBOURS)[1]
            similarities = picked_products(queries, moved, nearest)
        weights = torch.softmax(similarities / self.temperature + self.votes[nearest], dim=1)
        if self.learn_labels:
            self._read_scores()
        shares = functional.embedding_bag(nearest, self.labels, per_sample_weights=weights, mode="sum")
        return _Asked(moved, nearest, weights, shares)

    def _read_scores(self) -> None:
        """Have the chances of the classes ``[K, C, L]`` and the votes for them ``[K, C * L]`` that the scores say."""
        self.chances = torch.softmax(self.scores, dim=1)
        self.labels = (self.chances * self.voting).flatten(1)


class _Asked(NamedTuple):
    """What rows say of queries."""

    moved: torch.Tensor  # [K, D], the rows, of unit length
    nearest: torch.Tensor  # [B, k], rows that each query asked
    weights: torch.Tensor  # [B, k], of their votes; a query's are 1 in all
    shares: torch.Tensor  # [B, C * L], those that a query gets


class _Backwards:
    """From neighbours of queries to queries of rows.

    Args:
        nearest: ``[B, k]``, the rows that each query asked.
        rows: K.
    """

    def __init__(self, nearest: torch.Tensor, rows: int) -> None:
        self.order = nearest.flatten().argsort(stable=True)
        self.query = self.order // nearest.shape[1]
        asked = torch.bincount(nearest.flatten(), minlength=rows)
        self.first = asked.cumsum(dim=0) - asked

    def sums(self, weights: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Return for each row the weighted sum ``[K, E]`` of the values ``[B, E]`` of the queries that asked it."""
        ordered = weights.flatten()[self.order]
        return functional.embedding_bag(self.query, values, self.first, per_sample_weights=ordered, mode="sum")


def _seen(rows: int, dims: int) -> int:
    """Return in how many dimensions the nearest of so many rows are looked for."""
    return dims if rows <= _FEW_ROWS else min(dims, _SEEN)


def strongest_directions(rows: torch.Tensor, number: int) -> torch.Tensor | None:
    """Return an orthonormal basis ``[D, d]`` of the directions in which rows ``[K, D]`` have most of their length.

    None where that number is all there are.
    """
    if rows.shape[1] <= number:
        return None
    return torch.linalg.eigh(rows.transpose(0, 1) @ rows).eigenvectors[:, -number:].contiguous()


def picked_products(left: torch.Tensor, right: torch.Tensor, picked: torch.Tensor) -> torch.Tensor:
    """Return the inner products ``[B, k]`` of the rows of ``left`` ``[B, E]`` with k picked of ``right`` ``[K, E]``.

    Takes a tenth of the time of a product with a copy of the picked rows.
    """
    starts, zeros = torch.arange(0, picked.numel() + 1, picked.shape[1]), torch.zeros(picked.numel())
    size = len(left), len(right)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse")  # in beta; and that the rows picked are not checked
        places = torch.sparse_csr_tensor(starts, picked.flatten(), zeros, size, check_invariants=False)
    return torch.sparse.sampled_addmm(places, left, right.transpose(0, 1), beta=0.0).values().view_as(picked)


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
