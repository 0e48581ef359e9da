# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Which patches are hidden: uniformly at random (MAE) or in blocks (iBOT). Pure functions, seeded."""

from __future__ import annotations

import math

import torch

_SMALLEST, _ASPECT, _ATTEMPTS = 4, 0.3, 100  # of rectangles: patches of the smallest, narrowest, and how many are tried


def random_partition(
    batch: int, patches: int, ratio: float, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the visible ``[B, V]`` and the masked ``[B, M]`` patches of each image, sorted indices.

    M = round(ratio * P), V = P - M; each image draws its own, uniformly without replacement [0]. Prefix tokens are
    no patches: they have no index here and are never masked.

    [0]: He et al., Masked Autoencoders Are Scalable Vision Learners, 2021, arXiv 2111.06377.
    """
    masked = round(ratio * patches)
    order = torch.rand(batch, patches, generator=generator, device=generator.device).argsort(dim=1)
    return order[:, masked:].sort(dim=1).values, order[:, :masked].sort(dim=1).values


def block_mask(grid: tuple[int, int], ratio: float, generator: torch.Generator) -> torch.Tensor:
    """Return a mask ``[rows, columns]`` (bool) of rectangles that hide exactly round(ratio * rows * columns) patches.

    Rectangles of random size and shape are laid over each other, as in BEiT [0]; what they leave open of the count, or
    take beyond it, is evened out patch by patch.

    Args:
        grid: (rows, columns) of patches.
        ratio: Share of the patches to hide, in [0, 1].
        generator: Source of randomness.

    [0]: Bao et al., BEiT, 2021, arXiv 2106.08254, algorithm 1. Differs in: the count is exact.
    """
    rows, columns = grid
    wanted = round(ratio * rows * columns)
    mask = torch.zeros(rows, columns, dtype=torch.bool, device=generator.device)
    for _ in range(_ATTEMPTS):
        missing = wanted - int(mask.sum())
        if missing < _SMALLEST:
            break
        top, left, height, width = _rectangle(grid, missing, generator)
        mask[top : top + height, left : left + width] = True
    return _even_out(mask, wanted, generator)


def _rectangle(grid: tuple[int, int], largest: int, generator: torch.Generator) -> tuple[int, int, int, int]:
    """Return (top, left, height, width) of a random rectangle of ``largest`` patches at most."""
    area_draw, aspect_draw, top_draw, left_draw = torch.rand(4, generator=generator, device=generator.device).tolist()
    area = _SMALLEST + area_draw * (largest - _SMALLEST)
    shape = math.exp((2 * aspect_draw - 1) * math.log(1 / _ASPECT))
    height = min(max(round(math.sqrt(area * shape)), 1), grid[0])
    width = min(max(round(math.sqrt(area / shape)), 1), grid[1])
    return int(top_draw * (grid[0] - height + 1)), int(left_draw * (grid[1] - width + 1)), height, width


def _even_out(mask: torch.Tensor, wanted: int, generator: torch.Generator) -> torch.Tensor:
    """Return the mask with exactly ``wanted`` patches hidden, random ones added or taken away."""
    flat = mask.flatten()
    surplus = int(flat.sum()) - wanted
    if surplus:
        candidates = torch.nonzero(flat == (surplus > 0)).flatten()
        order = torch.randperm(len(candidates), generator=generator, device=generator.device)
        flat[candidates[order[: abs(surplus)]]] = surplus < 0
    return flat.view_as(mask)
