# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Which of many unlabelled images to label next: those that cover most of what the bank does not cover yet."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from anomalib_aoissl.matching.searching import search

REPRESENTATIVES = 64
"""Patches that stand for an image."""


@dataclass(frozen=True)
class PoolImage:
    """An unlabelled image as the patches that stand for it.

    Attributes:
        name: Its name.
        embeddings: ``[M, D]`` of unit length, those patches.
        weights: ``[M]``, share of the image's patches that each stands for, sum 1.
        similarity: ``[M]``, similarity of each to the nearest patch of the bank; 0 where the bank is empty.
        novelty: Mean novelty of all its patches, 1 where the bank is empty.
        largest_novelty: Largest novelty of its patches.
    """

    name: str
    embeddings: torch.Tensor
    weights: torch.Tensor
    similarity: torch.Tensor
    novelty: float
    largest_novelty: float


@dataclass(frozen=True)
class Choice:
    """An image to label.

    Attributes:
        name: Its name.
        gain: How much nearer the pool's patches come to a labelled one by it: mean rise of the largest similarity.
        coverage: Mean largest similarity of the pool's patches to the bank and all images chosen up to this one.
        novelty: Mean novelty of its patches against the bank alone.
        largest_novelty: Largest of them.
    """

    name: str
    gain: float
    coverage: float
    novelty: float
    largest_novelty: float


@torch.no_grad()
def summarize(name: str, embeddings: torch.Tensor, bank: torch.Tensor) -> PoolImage:
    """Return an image as `REPRESENTATIVES` of its patches, chosen by k-center so that none is far from all of them.

    Args:
        name: Name of the image.
        embeddings: ``[P, D]`` of unit length, all its patches, as `RetrievalModel.read` gives them.
        bank: ``[N, D]``, the patches that are compared with; there may be none.
    """
    if len(bank):
        unit = torch.nn.functional.normalize(bank.float(), dim=-1)
        nearest = search(embeddings, unit, 1)[0][:, 0]
    else:
        nearest = torch.zeros(len(embeddings))
    start = int(torch.randint(len(embeddings), (1,), generator=torch.Generator().manual_seed(0)))
    chosen, group = [start], torch.zeros(len(embeddings), dtype=torch.long)
    similarity = embeddings @ embeddings[start]
    while len(chosen) < min(REPRESENTATIVES, len(embeddings)):
        chosen.append(int(similarity.argmin()))
        new = embeddings @ embeddings[chosen[-1]]
        group = torch.where(new > similarity, len(chosen) - 1, group)
        similarity = torch.maximum(similarity, new)
    weights = torch.bincount(group, minlength=len(chosen)) / len(embeddings)
    novelty = 1.0 - nearest
    return PoolImage(
        name, embeddings[chosen], weights, nearest[chosen].clamp(min=0.0), float(novelty.mean()), float(novelty.max())
    )


def choose(pool: Iterable[PoolImage], count: int) -> list[Choice]:
    """Return the images to label, the first first: greedy facility location beyond the bank.

    What is raised is the mean over the pool's patches of the largest similarity to a patch of the bank or of a chosen
    image. An image gains where it is novel, where many patches of the pool are like it, and where no image chosen
    before it is; the objective is submodular, so the greedy choice reaches 1 - 1/e of the best one at least [0], and
    gains that were computed once are upper bounds later [1]. Memory is that of the representatives.

    [0]: Nemhauser, Wolsey and Fisher, 1978, 10.1007/BF01588971. [1]: Minoux, 1978, 10.1007/BFb0006528.

    Args:
        pool: The unlabelled images.
        count: Images to choose; all of them where the pool is smaller.

    Raises:
        ValueError: If count is below 1 or the pool is empty.
    """
    images = list(pool)
    if count < 1 or not images:
        msg = f"count={count} of a pool of {len(images)} images: there must be at least one of both."
        raise ValueError(msg)
    patches = torch.cat([image.embeddings for image in images])
    weights = torch.cat([image.weights for image in images]) / len(images)
    covered = torch.cat([image.similarity for image in images])

    def covered_with(index: int) -> torch.Tensor:
        return torch.maximum(covered, search(patches, images[index].embeddings, 1)[0][:, 0])

    def gain_of(after: torch.Tensor) -> float:
        return float((weights * (after - covered)).sum())

    bounds = [(-gain_of(covered_with(index)), index) for index in range(len(images))]
    heapq.heapify(bounds)
    choices: list[Choice] = []
    while bounds and len(choices) < count:
        _, index = heapq.heappop(bounds)
        after = covered_with(index)
        gain = gain_of(after)
        if bounds and gain < -bounds[0][0]:
            heapq.heappush(bounds, (-gain, index))  # another may gain more by now
            continue
        covered, image = after, images[index]
        coverage = float((weights * covered).sum())
        choices.append(Choice(image.name, gain, coverage, image.novelty, image.largest_novelty))
    return choices
