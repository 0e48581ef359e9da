# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Heads with few weights, for few labels, and the choice of a head by its name."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from .upernet import STRIDES, UPerHead, conv_block, resize

__all__ = ["HEADS", "ConvHead", "LinearHead", "ProbedHead", "build_head", "linear_part", "zero"]

HEADS = ("upernet", "conv", "linear")
"""Names of the heads."""

_MOST_CELLS = 8  # along a side of a patch: patches of 16 px have cells of 2 px, since weights grow with the square


class LinearHead(nn.Module):
    """One linear map of a patch's features to the scores of its pixels, or of cells of a few px in a large patch.

    No more than what the encoder already knows can be read out. It starts at 0.

    Args:
        embed_dim: Channels of each feature map.
        blocks: Feature maps.
        patch_size: (height, width) px of a patch.
        num_classes: Classes, the background among them.
    """

    def __init__(self, embed_dim: int, blocks: int, patch_size: tuple[int, int], num_classes: int) -> None:
        super().__init__()
        self.patch_size, self.num_classes = patch_size, num_classes
        self.cells = (_cells(patch_size[0]), _cells(patch_size[1]))
        self.classify = nn.Conv2d(embed_dim * blocks, num_classes * self.cells[0] * self.cells[1], 1)
        zero(self.classify)

    @property
    def bias(self) -> torch.Tensor:
        """Biases ``[classes * cells]``."""
        bias: torch.Tensor = self.classify.bias  # type: ignore[assignment]
        return bias

    def forward(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return scores ``[B, classes, rows * cells, columns * cells]`` of maps ``[B, D, rows, columns]``."""
        scores = self.classify(torch.cat(list(features), dim=1))
        scores = scores.unflatten(1, (self.num_classes, *self.cells))  # [B, classes, down, right, rows, columns]
        return scores.permute(0, 1, 4, 2, 5, 3).flatten(4, 5).flatten(2, 3)


class ProbedHead(nn.Module):
    """The sum of a linear head and a decoder whose last layer is 0 at first: it starts as the linear head alone.

    Args:
        linear: The linear head.
        decoder: A head whose last layer is its ``classify``.
    """

    def __init__(self, linear: LinearHead, decoder: UPerHead | ConvHead) -> None:
        super().__init__()
        self.linear, self.decoder = linear, decoder
        zero(decoder.classify[-1])

    def forward(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return scores ``[B, classes, h, w]`` of feature maps ``[B, D, rows, columns]``, as fine as the linear's."""
        scores = self.linear(features)
        return scores + resize(self.decoder(features), scores.shape[-2:])


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
    probe: bool,
) -> nn.Module:
    """Return the head of the name for feature maps ``[B, embed_dim, rows, columns]``; with a linear one for a probe.

    Raises:
        ValueError: If there is no such head, or it cannot have so many channels.
    """
    if channels < 2 or channels % 2:
        msg = f"head_channels={channels} must be even and at least 2; 96 is the default."
        raise ValueError(msg)
    if name not in HEADS:
        msg = f"head={name!r} is unknown; the heads are {list(HEADS)}."
        raise ValueError(msg)
    linear = LinearHead(embed_dim, blocks, patch_size, num_classes)
    if name == "linear":
        return linear
    decoder: UPerHead | ConvHead
    if name == "conv":
        decoder = ConvHead(embed_dim, blocks, patch_size, num_classes, channels=max(channels // 2, 2))
    else:
        decoder = UPerHead(embed_dim, patch_size, grid_size, num_classes, channels=channels)
    return ProbedHead(linear, decoder) if probe else decoder


def linear_part(head: nn.Module | None) -> LinearHead | None:
    """Return the head, or the part of it, that a linear probe can be fitted to."""
    part = head.linear if isinstance(head, ProbedHead) else head
    return part if isinstance(part, LinearHead) else None


def zero(layer: nn.Module) -> None:
    """Set all weights of a layer to 0."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def _cells(side: int) -> int:
    """Return the cells along a patch's side of so many px: one for each px up to 8, else the most that divide it."""
    return max(count for count in range(1, _MOST_CELLS + 1) if side % count == 0)
