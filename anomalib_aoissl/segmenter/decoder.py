# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The decoder: a small U-Net that learns from the image, the encoder's tokens and the pixel head's answer."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

TOKENS = 64
"""Directions of the tokens that the decoder reads, the first of the pixel head's."""

STRIDE = 4
"""Pixels, across and down, of the finest level; what is finer is added at the image's own resolution."""

_CHANNELS, _FINE = 32, 8
_GROUPS = 8  # of the group norms: steps of one image have no batch statistics


class Decoder(nn.Module):
    """Image, class probabilities and tokens to class scores at the image's resolution.

    A U-Net [0] of five levels, strides 4 to 64 px, and two convolutions at full resolution, where wires of two px are.
    Its last layers are 0 at first: an untrained decoder finds all classes equally likely.

    [0]: Ronneberger et al., U-Net, 2015, arXiv 1505.04597; differs in that it begins at stride 4.

    Args:
        planes: Planes of an image.
        classes: C.
        tokens: Directions of the tokens that are read, at most.
    """

    def __init__(self, planes: int, classes: int, tokens: int = TOKENS) -> None:
        super().__init__()
        width = _CHANNELS
        self.tokens = min(tokens, TOKENS)
        self.stem = _conv(STRIDE * STRIDE * planes + classes, width, 1)
        self.fine_tokens, self.coarse_tokens = (nn.Conv2d(self.tokens, n, 1) for n in (width, 2 * width))
        self.down = nn.ModuleList(
            [
                _block(width, width),
                _block(width, 2 * width, stride=2),
                _block(2 * width, 2 * width, stride=2),
                _block(2 * width, 3 * width, stride=2),
                _block(3 * width, 3 * width, stride=2),
            ]
        )
        self.up = nn.ModuleList(
            [
                _block(6 * width, 2 * width),
                _block(4 * width, 2 * width),
                _block(4 * width, width),
                _block(2 * width, width),
            ]
        )
        self.reduce = nn.Conv2d(width, _FINE, 1)
        self.fine = _block(planes + classes + _FINE, _FINE)
        self.coarse_scores, self.fine_scores = nn.Conv2d(width, classes, 1), nn.Conv2d(_FINE, classes, 1)
        for layer in (self.coarse_scores, self.fine_scores):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, images: torch.Tensor, probabilities: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Return class scores before the softmax ``[B, C, H, W]``.

        Args:
            images: Normalised images ``[B, P, H, W]``.
            probabilities: Class probabilities of the pixel head, ``[B, C, H, W]``.
            tokens: Standardised tokens ``[B, E, rows, columns]``, of which the first directions are read.
        """
        height, width = images.shape[-2:]
        both = torch.cat([images, 4 * probabilities - 1], dim=1)  # both of about unit size
        padded = functional.pad(both, (0, -width % STRIDE, 0, -height % STRIDE), mode="replicate")
        planes, classes = padded[:, : images.shape[1]], padded[:, images.shape[1] :]
        level = self.stem(
            torch.cat([functional.pixel_unshuffle(planes, STRIDE), functional.avg_pool2d(classes, STRIDE)], dim=1)
        )
        known = tokens[:, : self.tokens]
        level = level + _resized(self.fine_tokens(known), level)
        levels = []
        for index, block in enumerate(self.down):
            level = block(level)
            if index == 2:
                level = level + _resized(self.coarse_tokens(known), level)
            levels.append(level)
        for block, skip in zip(self.up, levels[-2::-1], strict=True):
            level = block(torch.cat([_resized(level, skip), skip], dim=1))
        fine = torch.cat([padded, _resized(self.reduce(level), padded)], dim=1)
        scores = _resized(self.coarse_scores(level), padded) + self.fine_scores(self.fine(fine))
        return scores[..., :height, :width]


def _resized(maps: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return maps at the size of others, bilinear."""
    return functional.interpolate(maps, size=like.shape[-2:], mode="bilinear", align_corners=False)


def _conv(inputs: int, outputs: int, side: int, stride: int = 1) -> nn.Sequential:
    """Return convolution, group norm and rectified linear unit."""
    layer = nn.Conv2d(inputs, outputs, side, stride, side // 2, bias=False)
    return nn.Sequential(layer, nn.GroupNorm(min(_GROUPS, outputs), outputs), nn.ReLU(inplace=True))


def _block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """Return two convolutions of 3x3, the first with the stride."""
    return nn.Sequential(_conv(inputs, outputs, 3, stride), _conv(outputs, outputs, 3))
