# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""UPerNet on a plain vision transformer: features of four blocks to a pyramid, and the pyramid to class scores.

Own code, since segmentation-models-pytorch wants its own encoders around its decoder, norms over the batch, and pools
in a way that has no ONNX counterpart for every size; its dependencies would weigh more than these lines.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

__all__ = [
    "STRIDES",
    "FeaturePyramid",
    "PyramidPooling",
    "UPerHead",
    "conv_block",
    "group_norm",
    "pooling_weights",
    "resize",
]

STRIDES = (4, 8, 16, 32)
"""Input px between neighbouring features, for each level of the pyramid."""

_BINS = (1, 2, 3, 6)  # of pyramid pooling, as in PSPNet
_NORM_GROUPS = 8


class UPerHead(nn.Module):
    """Pyramid pooling and top-down fusion [0]: features of four blocks to class scores at 1/4 of the input.

    Differs from [0] in the norm, over groups of channels instead of the batch: a batch holds few images here.

    [0]: Xiao et al., Unified Perceptual Parsing for Scene Understanding, 2018, arXiv 1807.10221.

    Args:
        embed_dim: Channels of each feature map.
        patch_size: (height, width) px of a patch.
        grid_size: (rows, columns) of patches.
        num_classes: Classes, the background among them.
        channels: Channels of the decoder.
        dropout: Share of the fused channels that are left out in training.
    """

    def __init__(
        self,
        embed_dim: int,
        patch_size: tuple[int, int],
        grid_size: tuple[int, int],
        num_classes: int,
        *,
        channels: int = 96,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.pyramid = FeaturePyramid(embed_dim, patch_size)
        *finer, coarsest = self.pyramid.channels
        self.laterals = nn.ModuleList(conv_block(width, channels, 1) for width in finer)
        self.pooling = PyramidPooling(coarsest, channels, self.pyramid.sizes(grid_size)[-1])
        self.smooth = nn.ModuleList(conv_block(channels, channels, 3) for _ in finer)
        self.fuse = conv_block(channels * len(STRIDES), channels, 3)
        self.classify = nn.Sequential(nn.Dropout2d(dropout), nn.Conv2d(channels, num_classes, 1))

    def forward(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return scores ``[B, classes, H / 4, W / 4]`` of four feature maps ``[B, D, rows, columns]``."""
        *finer, coarsest = self.pyramid(features)
        above = self.pooling(coarsest)
        maps = [above]
        for level, lateral, smooth in reversed(list(zip(finer, self.laterals, self.smooth, strict=True))):
            reduced = lateral(level)
            above = reduced + resize(above, reduced.shape[-2:])
            maps.append(smooth(above))
        finest = maps[-1].shape[-2:]
        return self.classify(self.fuse(torch.cat([resize(level, finest) for level in maps], dim=1)))


class FeaturePyramid(nn.Module):
    """Feature maps of one size, of the blocks of a plain transformer, at the four strides of `STRIDES`.

    A patch of 16 px gives the scales 4, 2, 1 and 1/2 of ViTDet [0] and BEiT [1]; one of 8 px gives 2, 1, 1/2, 1/4.

    [0]: Li et al., Exploring Plain Vision Transformer Backbones for Object Detection, 2022, arXiv 2203.16527.
    [1]: Bao et al., BEiT, 2021, arXiv 2106.08254; differs in that each doubling halves the channels, as in [0].

    Args:
        embed_dim: Channels of the feature maps.
        patch_size: (height, width) px of a patch.
    """

    def __init__(self, embed_dim: int, patch_size: tuple[int, int]) -> None:
        super().__init__()
        first = round(math.log2(math.sqrt(patch_size[0] * patch_size[1]) / STRIDES[0]))
        self.doublings = [first - level for level in range(len(STRIDES))]  # negative: halvings
        self.channels = [embed_dim >> max(count, 0) for count in self.doublings]
        self.scale = nn.ModuleList(_rescale(embed_dim, count) for count in self.doublings)

    def sizes(self, grid_size: tuple[int, int]) -> list[tuple[int, int]]:
        """Return (height, width) of each level for a grid of patches."""

        def scaled(length: int, count: int) -> int:
            return length << count if count >= 0 else -(-length >> -count)

        return [(scaled(grid_size[0], count), scaled(grid_size[1], count)) for count in self.doublings]

    def forward(self, features: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return the levels, finest first, of four maps ``[B, D, rows, columns]``, first block first."""
        return [scale(feature) for scale, feature in zip(self.scale, features, strict=True)]


class PyramidPooling(nn.Module):
    """A map joined by its own averages over 1, 2, 3 and 6 bins a side [0].

    [0]: Zhao et al., Pyramid Scene Parsing Network, 2017, arXiv 1612.01105.

    Args:
        in_channels: Channels of the map.
        channels: Channels of the result.
        size: (height, width) of the map.
    """

    def __init__(self, in_channels: int, channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.reduce = nn.ModuleList(conv_block(in_channels, channels, 1) for _ in _BINS)
        self.join = conv_block(in_channels + channels * len(_BINS), channels, 3)
        for bins in _BINS:  # two matrix products, since ONNX has no pooling to a number of bins
            self.register_buffer(f"rows_{bins}", pooling_weights(size[0], bins), persistent=False)
            self.register_buffer(f"columns_{bins}", pooling_weights(size[1], bins), persistent=False)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return ``[B, channels, h, w]`` of a map ``[B, in_channels, h, w]``."""
        pooled = [features]
        for bins, reduce in zip(_BINS, self.reduce, strict=True):
            rows, columns = self.get_buffer(f"rows_{bins}"), self.get_buffer(f"columns_{bins}")
            if tuple(features.shape[-2:]) == (rows.shape[1], columns.shape[1]):
                averages = rows.to(features) @ features @ columns.to(features).transpose(0, 1)  # [B, C, bins, bins]
            else:  # a crop in training; the same averages
                averages = functional.adaptive_avg_pool2d(features, bins)
            pooled.append(resize(reduce(averages), features.shape[-2:]))
        return self.join(torch.cat(pooled, dim=1))


def pooling_weights(length: int, bins: int) -> torch.Tensor:
    """Return the weights ``[bins, length]`` that average as torch's adaptive pooling does along one axis."""
    weights = torch.zeros(bins, length)
    for index in range(bins):
        start, end = index * length // bins, -(-(index + 1) * length // bins)
        weights[index, start:end] = 1 / (end - start)
    return weights


def conv_block(in_channels: int, channels: int, kernel: int) -> nn.Sequential:
    """Return convolution, norm and ReLU that keep the size."""
    convolution = nn.Conv2d(in_channels, channels, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, group_norm(channels), nn.ReLU(inplace=True))


def group_norm(channels: int) -> nn.GroupNorm:
    """Return a norm over groups of at least two channels, so that a map of one pixel has a variance."""
    return nn.GroupNorm(math.gcd(_NORM_GROUPS, max(channels // 2, 1)), channels)


def resize(features: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Return features ``[B, C, h, w]`` at the size (height, width), bilinear."""
    if tuple(features.shape[-2:]) == tuple(size):
        return features
    return functional.interpolate(features, size=tuple(size), mode="bilinear", align_corners=False)


def _rescale(embed_dim: int, doublings: int) -> nn.Module:
    """Return the layers that double a map so often, halving its channels, or halve it for a negative number."""
    if doublings <= 0:
        return nn.MaxPool2d(2**-doublings, ceil_mode=True) if doublings else nn.Identity()
    layers: list[nn.Module] = []
    for count in range(doublings):
        width = embed_dim >> (count + 1)
        layers += [nn.ConvTranspose2d(embed_dim >> count, width, 2, stride=2), group_norm(width), nn.GELU()]
    return nn.Sequential(*layers[:-2])  # the lateral's own norm follows the last one
