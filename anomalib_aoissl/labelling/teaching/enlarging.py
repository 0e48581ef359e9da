# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""A suggestion at its picture's size: probabilities are enlarged, not classes, so that edges are no blocks."""

from __future__ import annotations

import torch

from anomalib_aoissl.deployment.abstaining import uncertainty_of

LARGEST = 16_000_000
"""Pixels of a suggestion; those of larger pictures are made for fewer."""

_STRIP = 2_000_000  # values that are enlarged at once


def fine_size(picture: tuple[int, int], model: tuple[int, int]) -> tuple[int, int]:
    """Return the (height, width) of a picture's suggestion: its own, not less than the model's, not above `LARGEST`."""
    height, width = (max(pair) for pair in zip(picture, model, strict=True))
    scale = min(1.0, (LARGEST / (height * width)) ** 0.5)
    return max(model[0], int(height * scale)), max(model[1], int(width * scale))


def decided(
    probabilities: torch.Tensor, novelty: torch.Tensor, size: tuple[int, int], limits: tuple[float, float]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return classes ``[H, W]`` uint8, where they are unsure, and where the picture is novel, both bool.

    Probabilities are enlarged bilinearly, strip by strip, so that those of all classes never lie in memory whole.

    Args:
        probabilities: Class probabilities ``[C, h, w]``.
        novelty: ``[rows, columns]``, of the patches.
        size: (H, W).
        limits: Uncertainty and novelty above which a pixel is unsure, and novel.
    """
    wide = [linear(values, 2, size[1]) for values in (probabilities, novelty[None])]
    rows = max(1, _STRIP // (len(probabilities) * size[1]))
    strips = []
    for start in range(0, size[0], rows):
        part = range(start, min(start + rows, size[0]))
        (largest, found), new = linear(wide[0], 1, size[0], part).max(dim=0), linear(wide[1], 1, size[0], part)[0]
        strips.append((found.to(torch.uint8), uncertainty_of(largest, new) > limits[0], new > limits[1]))
    classes, unsure, novel = (torch.cat(parts) for parts in zip(*strips, strict=True))
    return classes, unsure, novel


def linear(values: torch.Tensor, dim: int, length: int, part: range | None = None) -> torch.Tensor:
    """Return values at so many places along a dimension, linear between pixel centres; some of the places, if given."""
    old = values.shape[dim]
    if old == length:
        return values if part is None else values.narrow(dim, part.start, len(part))
    places = torch.arange(length) if part is None else torch.arange(part.start, part.stop)
    at = ((places + 0.5) * (old / length) - 0.5).clamp(0, old - 1)
    low = at.long()
    shape = [1] * values.ndim
    shape[dim] = len(at)
    high = values.index_select(dim, (low + 1).clamp(max=old - 1))
    return torch.lerp(values.index_select(dim, low), high, (at - low).to(values.dtype).reshape(shape))
