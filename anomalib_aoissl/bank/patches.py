# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Masks to the labels of patches, and back; of NumPy arrays and of torch's tensors alike."""

from __future__ import annotations

from typing import TypeVar

from einops import rearrange

ArrayT = TypeVar("ArrayT")


def patch_labels(masks: ArrayT, patch_size: tuple[int, int]) -> ArrayT:
    """Return the labels ``[..., P, L]`` of each patch of masks ``[..., H, W]``; patches and pixels in row-major order.

    Raises:
        ValueError: If the patch does not divide the masks.
    """
    size: tuple[int, ...] = masks.shape[-2:]  # type: ignore[attr-defined]
    if size[0] % patch_size[0] or size[1] % patch_size[1]:
        msg = f"Masks of {size[0]}x{size[1]} px are not divided by patches of {patch_size[0]}x{patch_size[1]} px."
        raise ValueError(msg)
    return rearrange(masks, "... (r h) (c w) -> ... (r c) (h w)", h=patch_size[0], w=patch_size[1])


def patches_to_image(patches: ArrayT, grid: tuple[int, int], patch_size: tuple[int, int]) -> ArrayT:
    """Return the pixels ``[..., H, W]`` of patches ``[..., P, L]``; the inverse of `patch_labels`.

    Args:
        patches: Patches and pixels in row-major order.
        grid: (rows, columns) of patches.
        patch_size: (height, width) of a patch, px.
    """
    sizes = {"r": grid[0], "c": grid[1], "h": patch_size[0], "w": patch_size[1]}
    return rearrange(patches, "... (r c) (h w) -> ... (r h) (c w)", **sizes)
