# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Masks to the labels of patches, and back."""

from __future__ import annotations

import torch


def patch_labels(masks: torch.Tensor, patch_size: tuple[int, int]) -> torch.Tensor:
    """Return the labels ``[B, P, L]`` of each patch of masks ``[B, H, W]``; patches and pixels in row-major order.

    Raises:
        ValueError: If the patch does not divide the masks.
    """
    batch, height, width = masks.shape
    rows, columns = height // patch_size[0], width // patch_size[1]
    if (rows * patch_size[0], columns * patch_size[1]) != (height, width):
        msg = f"Masks of {height}x{width} px are not divided by patches of {patch_size[0]}x{patch_size[1]} px."
        raise ValueError(msg)
    blocks = masks.reshape(batch, rows, patch_size[0], columns, patch_size[1])
    return blocks.permute(0, 1, 3, 2, 4).reshape(batch, rows * columns, -1)  # [B, P, L]


def patches_to_image(patches: torch.Tensor, grid: tuple[int, int], patch_size: tuple[int, int]) -> torch.Tensor:
    """Return the pixels ``[B, H, W]`` of patches ``[B, P, L]``; the inverse of `patch_labels`."""
    rows, columns = grid
    blocks = patches.reshape(-1, rows, columns, *patch_size).permute(0, 1, 3, 2, 4)
    return blocks.reshape(-1, rows * patch_size[0], columns * patch_size[1])  # [B, H, W]
