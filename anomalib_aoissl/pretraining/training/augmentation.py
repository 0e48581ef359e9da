# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Crops and light for inspection pictures of any number of channels; seeded, no photographic colour tricks.

A wire or a bond pad has no up and no left, so the eight symmetries of the square are all fair. Cameras differ in gain
and gamma, channel by channel where a channel is a light of its own. Hue and solarisation have no counterpart here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn import functional

from anomalib_aoissl.plugin.arguments import Rule, number
from anomalib_aoissl.plugin.options import Options

_CELL = 8  # px, raster of the positions that a crop can begin at, before its jitter


@dataclass(frozen=True)
class CropKind:
    """One kind of crop.

    Attributes:
        count: Crops of this kind in a sample.
        size: (height, width) of the crop, px.
        scale: Range of the zoom: a crop shows size / zoom px of the picture. (1, 1) resamples nothing.
    """

    count: int
    size: tuple[int, int]
    scale: tuple[float, float] = (1.0, 1.0)


class Crops:
    """Cuts random crops from a picture, more often where there is structure.

    Args:
        kinds: Crops of a sample by name.
        structure: Share of crops that are drawn by gradient energy; the others are drawn uniformly.
        symmetries: Turn by quarter turns and mirror at random.
    """

    def __init__(self, kinds: dict[str, CropKind], *, structure: float = 0.8, symmetries: bool = True) -> None:
        self.kinds = kinds
        self.structure = structure
        self.symmetries = symmetries

    def __call__(
        self, image: torch.Tensor, weights: torch.Tensor, generator: torch.Generator
    ) -> dict[str, torch.Tensor]:
        """Return the crops by name, uint8 ``[count, C, h, w]``, of a picture uint8 ``[C, H, W]``.

        ``weights`` are the picture's `structure_weights`.
        """
        return {
            name: torch.stack([self._crop(image, weights, kind, generator) for _ in range(kind.count)])
            for name, kind in self.kinds.items()
        }

    def _crop(
        self, image: torch.Tensor, weights: torch.Tensor, kind: CropKind, generator: torch.Generator
    ) -> torch.Tensor:
        """Return one crop ``[C, h, w]``."""
        draws = torch.rand(6, generator=generator).tolist()
        zoom = math.exp(math.log(kind.scale[0]) + draws[0] * math.log(kind.scale[1] / kind.scale[0]))
        turned = self.symmetries and draws[1] < 0.5
        size = kind.size[::-1] if turned else kind.size
        window = tuple(
            min(max(round(side / zoom), 1), limit) for side, limit in zip(size, image.shape[1:], strict=True)
        )
        by_structure = draws[2] < self.structure
        top, left = _place(weights if by_structure else None, image.shape[1:], window, generator)
        crop = image[:, top : top + window[0], left : left + window[1]]
        if turned:
            crop = crop.transpose(1, 2)
        flips = [axis for axis, draw in ((1, draws[3]), (2, draws[4])) if self.symmetries and draw < 0.5]
        return _resized(crop.flip(flips) if flips else crop, kind.size)


@dataclass(frozen=True)
class Light(Options):
    """Random gain and gamma of a batch of crops, drawn for each crop.

    Args:
        gain: Largest change of the gain, as the exponent of e: 0.3 is a factor 0.74 to 1.35.
        gamma: Largest change of the gamma, as the exponent of e.
    """

    RULES: ClassVar[Mapping[str, Rule]] = {"gain": number("[0, inf)"), "gamma": number("[0, inf)")}

    gain: float = 0.3
    gamma: float = 0.3

    def __call__(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return images ``[B, C, H, W]`` in [0, 1] under another light; the generator is on their device."""
        draws = torch.rand((2, len(images), 1, 1, 1), generator=generator, device=images.device) * 2 - 1
        gain, gamma = (self.gain * draws[0]).exp(), (self.gamma * draws[1]).exp()
        return (images.clamp_min(1e-4).pow(gamma) * gain).clamp(0, 1)


def structure_weights(image: torch.Tensor) -> torch.Tensor:
    """Return the mean absolute gradient ``[rows, columns]`` of each cell of 8 x 8 px of a picture uint8 ``[C, H, W]``.

    The gradient is taken at half resolution, where sensor noise is weaker, and its lowest tenth is taken off, which is
    what noise alone gives.
    """
    grey = image.float().mean(dim=0, keepdim=True) / 255  # [1, H, W]
    half = functional.avg_pool2d(grey[None], 2)
    down = functional.pad((half[:, :, 1:] - half[:, :, :-1]).abs(), (0, 0, 0, 1))
    right = functional.pad((half[..., 1:] - half[..., :-1]).abs(), (0, 1))
    cells = functional.avg_pool2d(down + right, _CELL // 2, ceil_mode=True)[0, 0]
    return (cells - cells.flatten().quantile(0.1)).clamp_min(0)


def _place(
    weights: torch.Tensor | None, limits: torch.Size, window: tuple[int, ...], generator: torch.Generator
) -> tuple[int, int]:
    """Return (top, left) of a window in a picture of the size ``limits``: by structure, or uniform without weights."""
    slack = [int(limit) - side for limit, side in zip(limits, window, strict=True)]
    if weights is None:
        draws = torch.rand(2, generator=generator).tolist()
        return int(draws[0] * (slack[0] + 1)), int(draws[1] * (slack[1] + 1))
    cells = tuple(min(max(round(side / _CELL), 1), limit) for side, limit in zip(window, weights.shape, strict=True))
    sums = functional.avg_pool2d(weights[None, None], cells, stride=1)[0, 0]  # structure in each window
    flat = sums.flatten() + sums.mean() * 0.05 + 1e-6  # every place stays possible
    cell = int(torch.multinomial(flat, 1, generator=generator))
    jitter = torch.randint(-_CELL // 2, _CELL // 2 + 1, (2,), generator=generator).tolist()
    starts = (cell // sums.shape[1], cell % sums.shape[1])
    top, left = (min(max(s * _CELL + j, 0), most) for s, j, most in zip(starts, jitter, slack, strict=True))
    return top, left


def _resized(crop: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Return the crop uint8 ``[C, h, w]`` at the size, resampled where it has another one."""
    if tuple(crop.shape[1:]) == tuple(size):
        return crop.contiguous()
    resized = functional.interpolate(crop[None].float(), size, mode="bilinear", antialias=True)[0]
    return resized.round().clamp(0, 255).to(torch.uint8)
