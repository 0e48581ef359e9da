# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Numbers that change while training goes on, as pure functions of the step."""

from __future__ import annotations

import math


def half_cosine(progress: float) -> float:
    """Return the value of half a cosine wave that falls from 1 at progress 0 to 0 at progress 1, and stays."""
    return (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0))) / 2


def cosine(step: int, steps: int, start: float, end: float) -> float:
    """Return the value at a step 0..steps - 1 of half a cosine wave from ``start`` to ``end``."""
    return end + (start - end) * half_cosine(step / max(steps - 1, 1))


def warmup_linear(step: int, warmup: int, start: float, end: float) -> float:
    """Return the value that grows linearly from ``start`` at step 0 to ``end`` at step ``warmup``, and stays."""
    return end if step >= warmup else start + (end - start) * step / warmup


def warmup_cosine(step: int, steps: int, warmup: int) -> float:
    """Return the factor that grows linearly to 1 over ``warmup`` steps, then falls to 0 as a cosine [0].

    The first step already takes 1 / warmup: a step at rate 0 would be lost.

    [0]: Loshchilov and Hutter, SGDR, 2016, arXiv 1608.03983; warm-up: Goyal et al., 2017, arXiv 1706.02677.
    """
    if step < warmup:
        return (step + 1) / warmup
    return cosine(step - warmup, steps - warmup, 1.0, 0.0)
