# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Heads with few weights, for few labels, and the choice of a head by its name."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from .upernet import STRIDES, UPerHead, conv_block, resize

__all__ = ["HEADS", "ConvHead", "LinearHead", "build_head"]

HEADS = ("upernet", "conv", "linear")
"""Names of the heads, most weights first."""


class LinearHead(nn.Module):
    """One linear map of a patch's features: no more than what the encoder already knows can be read out.

    Args:
        embed_dim: Channels of each feature map.
        blocks: Feature maps.
        num_classes: Classes, the background among them.
    """

    def __init__(self, embed_dim: int, blocks: int, num_classes: int) -> None:
        super().__init__()
        self.classify = nn.Conv2d(embed_dim * blocks, num_classes, 1)

    def forward(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return scores ``[B, classes, rows, columns]`` of feature maps ``[B, D, rows, columns]``."""
        return self.classify(torch.cat(list(features), dim=1))


class ConvHead(nn.Module):
    """Two small convolutions, the second at 1/4 of the input, where thin structures are wider than a patch.

    Args:
        embed_dim: Channels of each feature map.
        blocks: Feature maps.
        patch_size: (height, width) px of a patch.
        num_classes: Classes, the background among them.
        channels: Channels between the convolutions.
        dropout: Share of the channels that are left out in training.
    """

    def __init__(
        self,
        embed_dim: int,
        blocks: int,
        patch_size: tuple[int, int],
        num_classes: int,
        *,
        channels: int = 64,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.scale = [max(patch / STRIDES[0], 1.0) for patch in patch_size]
        self.reduce = conv_block(embed_dim * blocks, channels, 1)
        self.refine = conv_block(channels, channels, 3)
        self.classify = nn.Sequential(nn.Dropout2d(dropout), nn.Conv2d(channels, num_classes, 1))

    def forward(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return scores ``[B, classes, H / 4, W / 4]`` of feature maps ``[B, D, rows, columns]``."""
        reduced = self.reduce(torch.cat(list(features), dim=1))
        size = [round(length * scale) for length, scale in zip(reduced.shape[-2:], self.scale, strict=True)]
        return self.classify(self.refine(resize(reduced, size)))


def build_head(
    name: str,
    *,
    embed_dim: int,
    blocks: int,
    patch_size: tuple[int, int],
    grid_size: tuple[int, int],
    num_classes: int,
    channels: int,
) -> nn.Module:
    """Return the head of the name for feature maps ``[B, embed_dim, rows, columns]``.

    Raises:
        ValueError: If there is no such head, or it cannot have so many channels.
    """
    if channels < 2 or channels % 2:
        msg = f"head_channels={channels} must be even and at least 2; 96 is the default."
        raise ValueError(msg)
    if name == "linear":
        return LinearHead(embed_dim, blocks, num_classes)
    if name == "conv":
        return ConvHead(embed_dim, blocks, patch_size, num_classes, channels=max(channels // 2, 2))
    if name == "upernet":
        return UPerHead(embed_dim, patch_size, grid_size, num_classes, channels=channels)
    msg = f"head={name!r} is unknown; the heads are {list(HEADS)}."
    raise ValueError(msg)
