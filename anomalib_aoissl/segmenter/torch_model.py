# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The segmenter as tensors: extract features of four blocks, score the classes, and say how sure they are."""

from __future__ import annotations

import math

import torch
from anomalib.data import InferenceBatch
from torch import nn
from torch.nn import functional

from anomalib_aoissl.encoder import PatchEncoder, even_blocks
from anomalib_aoissl.pretraining.tokens import embed, grid_of

from .heads import HEADS, build_head
from .upernet import STRIDES

__all__ = ["SegmenterModel", "percentile"]

_PERCENTILE = 0.99


class SegmenterModel(nn.Module):
    """Encoder and head: normalised images to class indices and how uncertain each is.

    The head is made by `make_head` when the number of classes is known.

    Args:
        encoder: The encoder; from here on it gives the features of four evenly spaced blocks.
        head: "upernet", "conv" or "linear".
        head_channels: Channels of the head.
        probe: Sum the head with a linear one, to which a probe can be fitted.

    Raises:
        ValueError: If there is no such head.
    """

    def __init__(
        self, encoder: PatchEncoder, *, head: str = "upernet", head_channels: int = 96, probe: bool = True
    ) -> None:
        super().__init__()
        if head not in HEADS:
            msg = f"head={head!r} is unknown; the heads are {list(HEADS)}."
            raise ValueError(msg)
        self.levels = even_blocks(len(encoder.vit.blocks), len(STRIDES))
        encoder.block_indices = sorted(set(self.levels))
        self.encoder = encoder
        self.head_name, self.head_channels, self.probe = head, head_channels, probe
        self.head: nn.Module | None = None
        self.num_classes = 0

    def make_head(self, num_classes: int) -> None:
        """Make the head for so many classes; nothing changes where it is there.

        Raises:
            ValueError: If it is there for another number of classes, or a head has no channels.
        """
        if self.head is not None and num_classes == self.num_classes:
            return
        if self.head is not None:
            msg = (
                f"The head knows {self.num_classes} classes, {num_classes} are asked for. Train a model anew for them."
            )
            raise ValueError(msg)
        self.num_classes = num_classes
        head = build_head(
            self.head_name,
            embed_dim=int(self.encoder.vit.embed_dim),
            blocks=len(self.levels),
            patch_size=self.encoder.patch_size,
            grid_size=self.encoder.grid_size,
            num_classes=num_classes,
            channels=self.head_channels,
            probe=self.probe,
        )
        self.head = head.to(next(self.encoder.parameters()).device)

    def extract(self, images: torch.Tensor, offsets: torch.Tensor | None = None) -> list[torch.Tensor]:
        """Return four feature maps ``[B, D, rows, columns]``, first block first, of images ``[B, C, H, W]``.

        Args:
            images: Normalised images of the encoder's input size; crops of any size with offsets.
            offsets: (row, column) ``[B, 2]`` of the patch at which each crop begins in its image.
        """
        if offsets is None:
            grid, tokens = self.encoder.grid_size, self.encoder(images)  # [B, P, blocks * D]
        else:
            grid, tokens = grid_of(self.encoder.vit, images), self._crop_tokens(images, offsets)
        maps = tokens.transpose(1, 2).unflatten(2, grid)  # [B, blocks * D, rows, columns]
        indices = self.encoder.block_indices
        read = dict(zip(indices, maps.chunk(len(indices), dim=1), strict=True))
        return [read[index].contiguous() for index in self.levels]

    def _crop_tokens(self, images: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
        """Return what the encoder gives for whole images, ``[B, P, blocks * D]``, for crops of them."""
        vit = self.encoder.vit
        tokens, read = embed(vit, images, offsets=offsets), []
        for index, block in enumerate(vit.blocks[: self.encoder.block_indices[-1] + 1]):
            tokens = block(tokens)
            if index in self.encoder.block_indices:
                read.append(vit.norm(tokens) if self.encoder.normalize else tokens)
        return torch.cat([level[:, vit.num_prefix_tokens :] for level in read], dim=-1)

    def scores(self, images: torch.Tensor, offsets: torch.Tensor | None = None) -> torch.Tensor:
        """Return class scores before the softmax ``[B, classes, H, W]`` of normalised images ``[B, C, H, W]``.

        Args:
            images: Normalised images of the encoder's input size; crops of any size with offsets.
            offsets: As of `extract`.

        Raises:
            RuntimeError: If there is no head yet.
        """
        if self.head is None:
            msg = "The segmenter has no head yet: train it on labelled images first, or load a checkpoint (ckpt_path)."
            raise RuntimeError(msg)
        coarse = self.head(self.extract(images, offsets))
        size = self.encoder.image_size if offsets is None else (images.shape[-2], images.shape[-1])
        return functional.interpolate(coarse, size=size, mode="bilinear", align_corners=False)

    def forward(self, images: torch.Tensor) -> InferenceBatch:
        """Return class indices ``[B, 1, H, W]`` uint8, uncertainty ``[B, 1, H, W]`` and the image's ``[B]``.

        The uncertainty is 1 - the largest softmax probability, in [0, 1 - 1 / classes]; the image's is its 99th
        percentile. It says how close the choice between the known classes was, not how far the image is from the
        training images: a network may be sure of what it has never seen.

        Args:
            images: Normalised images ``[B, C, H, W]`` of the encoder's input size.

        Raises:
            RuntimeError: If there is no head yet.
        """
        best = self.scores(images).float().softmax(dim=1).max(dim=1, keepdim=True)  # [B, 1, H, W]
        uncertainty = 1.0 - best.values
        return InferenceBatch(
            pred_score=percentile(uncertainty.flatten(1), _PERCENTILE),
            anomaly_map=uncertainty,
            pred_mask=best.indices.to(torch.uint8),
        )


def percentile(values: torch.Tensor, share: float) -> torch.Tensor:
    """Return ``[B]``, the value of each row ``[B, N]`` below which the share of it lies, linear between neighbours.

    Equal to ``torch.quantile``, which has no ONNX counterpart.
    """
    position = share * (values.shape[-1] - 1)
    below = math.floor(position)
    largest = values.topk(values.shape[-1] - below, dim=-1).values  # [B, k], falling
    upper = largest[:, -2] if largest.shape[-1] > 1 else largest[:, -1]
    return torch.lerp(largest[:, -1], upper, position - below)
