# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""In which order to label: what `label-next` says of the folder's pictures, and why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from anomalib_aoissl.pixel_head.learning.sample import evenly_taken
from anomalib_aoissl.retrieval.asking.label_next import PoolImage, choose

MOST_POOLED = 200
"""Pictures that are compared with each other at most; of more, so many are taken evenly."""

MOST_RANKED = 20

MOST_LEARNED = 64
"""Painted pictures that a lesson learns at most, as many as a full fit fits its head to."""


@dataclass(frozen=True)
class Ranked:
    """A picture to label.

    Attributes:
        name: Its name.
        reason: Why, in a sentence.
    """

    name: str
    reason: str


def pooled(names: Sequence[str]) -> list[str]:
    """Return the pictures that are compared, evenly taken."""
    return [names[index] for index in evenly_taken(len(names), MOST_POOLED)]


def learned(names: Sequence[str], painted: Callable[[str], str]) -> list[str]:
    """Return the painted pictures that a lesson learns: of many, those painted last, and as many others evenly taken.

    Args:
        names: The painted pictures.
        painted: Gives what is greater the later a picture was painted.
    """
    if len(names) <= MOST_LEARNED:
        return list(names)
    last = set(sorted(names, key=painted)[-(MOST_LEARNED // 2) :])
    rest = [name for name in names if name not in last]
    chosen = last | {rest[index] for index in evenly_taken(len(rest), MOST_LEARNED - len(last))}
    return [name for name in names if name in chosen]


def ranked(pool: Sequence[PoolImage]) -> list[Ranked]:
    """Return the pictures to label next, the first first, with reasons."""
    if not pool:
        return []
    usual = sorted(image.novelty for image in pool)[len(pool) // 2]
    return [
        Ranked(choice.name, _reason(rank, choice.novelty, usual, choice.coverage))
        for rank, choice in enumerate(choose(pool, min(MOST_RANKED, len(pool))), start=1)
    ]


def _reason(rank: int, novelty: float, usual: float, coverage: float) -> str:
    """Return why a picture has its rank."""
    if usual > 0.99:  # nothing is labelled
        return f"{rank}. stands for many pictures; with those before it {coverage:.0%} of the folder is alike"
    kind = "new: little that is labelled looks like it" if novelty > 1.3 * usual else "like many unlabelled pictures"
    return f"{rank}. {kind} (novelty {novelty:.2f}, usual {usual:.2f})"
