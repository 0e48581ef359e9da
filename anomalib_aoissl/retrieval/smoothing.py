# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Shares of the vote averaged over neighbouring pixels, also across the edges of patches, which vote apart."""

from __future__ import annotations

import torch
from torch.nn import functional

SMOOTHING = 1
"""Passes of the filter where nothing is said, in `AOISSLRetrieval`; the plain vote has none."""


def check_smoothing(times: int) -> None:
    """Refuse what is no number of times.

    Raises:
        ValueError: If it is no integer, or below 0.
    """
    if isinstance(times, bool) or not isinstance(times, int) or times < 0:
        msg = (
            f"smoothing={times!r} must be an integer from 0: the times that the votes of a pixel are averaged with "
            "those of its neighbours, 0 for never."
        )
        raise ValueError(msg)


def smoothed(maps: torch.Tensor, times: int) -> torch.Tensor:
    """Return maps ``[B, C, H, W]`` after so many passes of the binomial filter, weights 1-2-1 down and across.

    At an edge its pixels are repeated. What a pixel gives to another it also gets from it, so that the sum stays.
    """
    for _ in range(times):  # sums of slices: on a processor a tenth of the time that torch's pooling takes
        rows = functional.pad(maps, (0, 0, 1, 1), mode="replicate")
        maps = (rows[..., :-2, :] + rows[..., 2:, :]).add_(maps, alpha=2.0).mul_(0.25)
        columns = functional.pad(maps, (1, 1, 0, 0), mode="replicate")
        maps = (columns[..., :-2] + columns[..., 2:]).add_(maps, alpha=2.0).mul_(0.25)
    return maps


def vote_shares(votes: torch.Tensor) -> torch.Tensor:
    """Return each class's share of the votes ``[Q, C, L]`` for a pixel; 0 for all where nobody votes."""
    return votes / votes.sum(dim=1, keepdim=True).clamp(min=1e-12)


def class_maps(shares: torch.Tensor, grid: tuple[int, int], patch_size: tuple[int, int]) -> torch.Tensor:
    """Return the maps ``[B, C, H, W]`` of values ``[B * P, C, L]`` of the pixels of patches in row-major order."""
    blocks = shares.unflatten(0, (-1, *grid)).unflatten(4, patch_size)  # [B, rows, columns, C, h, w]
    return blocks.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


def map_patches(maps: torch.Tensor, grid: tuple[int, int], patch_size: tuple[int, int]) -> torch.Tensor:
    """Return the values ``[B * P, C, L]`` of the pixels of patches; the inverse of `class_maps`."""
    blocks = maps.unflatten(2, (grid[0], patch_size[0])).unflatten(4, (grid[1], patch_size[1]))
    return blocks.permute(0, 2, 4, 1, 3, 5).flatten(4, 5).flatten(0, 2)


def smooth_shares(votes: torch.Tensor, grid: tuple[int, int], patch_size: tuple[int, int], times: int) -> torch.Tensor:
    """Return the smoothed shares ``[Q, C, L]`` of votes ``[Q, C, L]`` for each class, Q = B * rows * columns.

    Args:
        votes: Of the pixels of patches.
        grid: (rows, columns) of an image's patches; (1, 1) for patches that are seen alone.
        patch_size: (height, width) of a patch, px.
        times: Passes of the filter of `smoothed`.
    """
    return map_patches(smoothed(class_maps(vote_shares(votes), grid, patch_size), times), grid, patch_size)
