# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Training crops: a part of each image that keeps rare classes, at its place on the encoder's grid of positions.

Attention costs the square of the number of patches. Sixteen crops of 128 px see as many pixels as one image of 512 px,
for a small part of its time.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from timm.models import VisionTransformer

from anomalib_aoissl.encoder import PatchEncoder

from .augmentation import rare_pixel

__all__ = ["crop_of", "cut_crops"]

_RARE = 0.75  # share of the crops that are placed around a pixel of a class drawn evenly from the foreground


def crop_of(encoder: PatchEncoder, crop_size: int | Sequence[int] | None) -> tuple[int, int] | None:
    """Return (height, width) px of the training crops, or None where whole images are trained on.

    No side is longer than the image's. Whole images also where the encoder has no absolute position embeddings of which
    a crop could take its part.

    Raises:
        ValueError: If a side is no positive multiple of the patch's.
    """
    if crop_size is None or not isinstance(encoder.vit, VisionTransformer):
        return None
    wanted = (crop_size, crop_size) if isinstance(crop_size, int) else tuple(crop_size)
    patch = encoder.patch_size
    if len(wanted) != 2 or any(side <= 0 or side % step for side, step in zip(wanted, patch, strict=False)):
        msg = (
            f"crop_size={crop_size} must be a side or (height, width) in px, multiples of the patch's "
            f"{patch[0]}x{patch[1]} px; null trains on whole images."
        )
        raise ValueError(msg)
    height, width = (min(side, limit) for side, limit in zip(wanted, encoder.image_size, strict=True))
    return None if (height, width) == tuple(encoder.image_size) else (height, width)


def cut_crops(
    images: torch.Tensor, masks: torch.Tensor, crop: tuple[int, int], patch_size: tuple[int, int], count: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return crops ``[N, C, h, w]`` of images in turn, their masks ``[N, h, w]``, and (row, column) ``[N, 2]`` of each.

    Crops begin where a patch of the image begins, so that each of their patches is one of the image's. Three of four
    hold a pixel of a class that is drawn evenly from the image's foreground, where it has any.

    Args:
        images: ``[B, C, H, W]``.
        masks: Class indices ``[B, H, W]``.
        crop: (h, w) px, multiples of the patch size.
        patch_size: (height, width) px.
        count: N, so that a batch of few images makes a step of many crops; never below B.
    """
    parts, labels, places = [], [], []
    for index in range(max(count, len(images))):
        image, mask = images[index % len(images)], masks[index % len(images)]
        pixel = rare_pixel(mask) if float(torch.rand(())) < _RARE else None
        row, column = (
            _first_patch(length // step, side // step, None if pixel is None else pixel[axis] // step)
            for axis, (length, side, step) in enumerate(zip(mask.shape, crop, patch_size, strict=True))
        )
        top, left = row * patch_size[0], column * patch_size[1]
        parts.append(image[:, top : top + crop[0], left : left + crop[1]])
        labels.append(mask[top : top + crop[0], left : left + crop[1]])
        places.append((row, column))
    return torch.stack(parts), torch.stack(labels), torch.tensor(places, device=images.device)


def _first_patch(patches: int, count: int, inside: int | None) -> int:
    """Return at which of an axis's patches a crop of ``count`` begins, so that it holds the patch ``inside``."""
    low, high = 0, patches - count
    if inside is not None:
        low, high = max(inside - count + 1, 0), min(inside, patches - count)
    return low + int(torch.randint(high - low + 1, ()))
