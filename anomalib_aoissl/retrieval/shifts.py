# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Images on patch grids that are shifted by parts of a patch, and what they give back in the image's own frame."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

from anomalib_aoissl.data.indices import IGNORE_INDEX

SHIFTS = (1, 2, 4)
"""Numbers of grids that `shift_offsets` knows."""

FEW_IMAGES, SOME_IMAGES = 8, 24
"""Labelled images up to which a bank has 4 grids and 2 where none are said: of many, each other image shows what a
shifted grid would, and the passes of the encoder are what a user waits for."""

Offset = tuple[int, int]


def bank_grids(bank_shifts: int | None, retrieval: str, images: int = 1) -> int:
    """Return the grids of each labelled image: as said, or where nothing is said as many as pay for so many images.

    Args:
        bank_shifts: A number of `SHIFTS`, or None.
        retrieval: Name in `units.RETRIEVALS`; whole images have one grid.
        images: Labelled images.
    """
    if bank_shifts is not None:
        return bank_shifts
    if retrieval != "patches" or images > SOME_IMAGES:
        return 1
    return 4 if images <= FEW_IMAGES else 2


def check_shifts(argument: str, shifts: int, patch_size: tuple[int, int]) -> None:
    """Refuse numbers of grids that do not exist, and halves of a patch that has none.

    Raises:
        ValueError: If the number is not one of `SHIFTS`, or a side of the patch is below 2 px.
    """
    if shifts not in SHIFTS or isinstance(shifts, bool):
        msg = f"{argument}={shifts!r} must be one of {list(SHIFTS)}: the number of grids, 1 for none that is shifted."
        raise ValueError(msg)
    if shifts > 1 and min(patch_size) < 2:
        msg = f"{argument}={shifts}: a patch of {patch_size[0]}x{patch_size[1]} px has no half to shift by; use 1."
        raise ValueError(msg)


def shift_offsets(shifts: int, patch_size: tuple[int, int]) -> list[Offset]:
    """Return the (down, right) offset in px of each grid: none; with 2 half a patch down and right; with 4 each alone.

    Those of fewer grids come first among those of more, so that a grid's number says its offset.
    """
    down, right = patch_size[0] // 2, patch_size[1] // 2
    return [(0, 0), (down, right), (0, right), (down, 0)][:shifts]


def shifted_images(images: torch.Tensor, offsets: Sequence[Offset]) -> torch.Tensor:
    """Return the crops ``[S * B, C, H, W]`` of images ``[B, C, H, W]`` at each of S offsets, the first's crops first.

    What a crop shows beyond the lower and the right edge is the image mirrored there: an edge of constant colour would
    be a structure of its own, which no labelled patch has.
    """
    crops = [
        functional.pad(images[..., down:, right:], (0, right, 0, down), mode="reflect") if down or right else images
        for down, right in offsets
    ]
    return torch.cat(crops) if len(crops) > 1 else crops[0]


def shifted_masks(masks: torch.Tensor, offset: Offset) -> torch.Tensor:
    """Return the crop ``[B, H, W]`` of masks at an offset; what lies beyond the edges is ignored (255)."""
    down, right = offset
    return functional.pad(masks[..., down:, right:], (0, right, 0, down), value=IGNORE_INDEX)


def realigned(maps: torch.Tensor, offset: Offset, value: float) -> torch.Tensor:
    """Return maps ``[..., H, W]`` of a crop in the image's frame; ``value`` where the crop did not see the image."""
    down, right = offset
    height, width = maps.shape[-2:]
    seen = maps[..., : height - down, : width - right]
    return functional.pad(seen, (right, 0, down, 0), value=value)


def mean_over_grids(maps: torch.Tensor, offsets: Sequence[Offset]) -> torch.Tensor:
    """Return the mean ``[B, C, H, W]``, in the image's frame, of the grids' maps ``[S * B, C, H, W]``.

    The mean of a pixel is over the grids whose crops see it; the first, which is not shifted, sees all.
    """
    grids = maps.unflatten(0, (len(offsets), -1))  # [S, B, C, H, W]
    total = torch.stack([realigned(grids[i], offset, 0.0) for i, offset in enumerate(offsets)]).sum(dim=0)
    one = maps.new_ones(maps.shape[-2:])
    return total / torch.stack([realigned(one, offset, 0.0) for offset in offsets]).sum(dim=0)


def patch_box(position: int, image_size: tuple[int, int], patch_size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the (top, left, height, width) in px of what a bank's row shows of its image.

    Args:
        position: Of the row: the number of the grid times the patches of an image, plus the patch in row-major order.
        image_size: (height, width) of the encoder's input.
        patch_size: (height, width) of a patch.
    """
    rows, columns = image_size[0] // patch_size[0], image_size[1] // patch_size[1]
    grid, patch = divmod(position, rows * columns)
    down, right = shift_offsets(max(SHIFTS), patch_size)[grid]
    top, left = patch // columns * patch_size[0] + down, patch % columns * patch_size[1] + right
    return top, left, min(patch_size[0], image_size[0] - top), min(patch_size[1], image_size[1] - left)
