# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Features of a pixel: image filters, and the encoder's tokens."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional

from .filters import scale_space
from .points import STRIDE


class FeatureMaps(NamedTuple):
    """Maps that together say what each pixel of an image looks like; coarse ones are bilinear in between."""

    fine: torch.Tensor  # [B, Ff, H, W]
    coarse: torch.Tensor  # [B, Fc, ceil(H / 4), ceil(W / 4)]


def feature_maps(images: torch.Tensor, tokens: torch.Tensor) -> FeatureMaps:
    """Return the features of images ``[B, C, H, W]`` with projected tokens ``[B, E, rows, columns]``."""
    fine, coarse = scale_space(images)
    return FeatureMaps(fine, torch.cat([coarse, _at_coarse(tokens, images.shape[-2:], coarse.shape[-2:])], dim=1))


def enlarged(coarse: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Return coarse maps at (height, width) px of the image, bilinear."""
    covered = [side * STRIDE for side in coarse.shape[-2:]]
    maps = functional.interpolate(coarse, size=covered, mode="bilinear", align_corners=False)
    return maps[..., : size[0], : size[1]]


def _at_coarse(tokens: torch.Tensor, image: torch.Size, coarse: torch.Size) -> torch.Tensor:
    """Return maps of tokens that cover an image at the pixels of its coarse maps, bilinear."""
    if tokens.shape[-2:] == coarse:
        return tokens
    down, across = (
        torch.from_numpy(_linear_weights(tokens.shape[axis], image[axis], coarse[axis])).to(tokens) for axis in (-2, -1)
    )
    return down @ tokens @ across.T


def _linear_weights(cells: int, length: int, places: int) -> np.ndarray:
    """Return the weights ``[places, cells]`` at each fourth px of cells that share a length of px."""
    centres = np.clip((np.arange(places) + 0.5) * STRIDE * cells / length - 0.5, 0, cells - 1)
    return np.maximum(1 - np.abs(centres[:, None] - np.arange(cells)), 0).astype(np.float32)
