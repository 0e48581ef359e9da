# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What every encoder gives: embeddings of patches for the memory bank, and tokens for the pixel head."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn


class EncoderMaps(NamedTuple):
    """What an encoder says of images, in one pass."""

    embeddings: torch.Tensor  # [B, P, D], one for each patch, in row-major order
    tokens: torch.Tensor  # [B, T, rows, columns], finer than the patches where the encoder is


def of_unit_length(features: torch.Tensor, dim: int) -> torch.Tensor:
    """Return features of length 1 along an axis; torch's own way takes a broadcast more in an exported graph."""
    return features / features.norm(dim=dim, keepdim=True).clamp(min=1e-6)


class Encoder(nn.Module):
    """A timm model that turns images into embeddings of patches, and into tokens.

    Attributes:
        image_size: (height, width) of the input, px.
        in_channels: Planes of the input.
        patch_size: (height, width) of the patch that an embedding stands for, px.
        embed_dim: Dimensions of a patch's embedding.
        token_dim: Dimensions of a token.
        border: Patches along each side of an image whose embeddings show that it ends there.
    """

    image_size: tuple[int, int]
    in_channels: int
    patch_size: tuple[int, int]
    embed_dim: int
    token_dim: int
    border: int = 0

    @property
    def network(self) -> Any:
        """The timm model."""
        raise NotImplementedError

    @property
    def signature(self) -> list[Any]:
        """Plain data of what decides the embeddings beside the weights."""
        raise NotImplementedError

    @property
    def grid_size(self) -> tuple[int, int]:
        """Patches of an image, (rows, columns)."""
        return self.image_size[0] // self.patch_size[0], self.image_size[1] // self.patch_size[1]

    @property
    def token_grid(self) -> tuple[int, int]:
        """Tokens of an image, (rows, columns)."""
        return self.grid_size

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of each input plane that the weights were trained with."""
        return self._constants("mean")

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of each input plane that the weights were trained with."""
        return self._constants("std")

    def _constants(self, key: str) -> tuple[float, ...]:
        """Return a constant of the pretrained configuration for each plane, repeated where planes were added."""
        values = tuple(self.network.pretrained_cfg[key])
        return tuple(float(values[plane % len(values)]) for plane in range(self.in_channels))

    def describe(self) -> dict[str, Any]:
        """Return plain data from which the same architecture is built again without the weights' source.

        The mapping has the keys ``architecture``, ``model_args``, ``mean`` and ``std``; `create_encoder` takes it.
        """
        return {
            "architecture": self.network.pretrained_cfg["architecture"],
            "model_args": dict(self.network.aoissl_model_args),
            "mean": list(self.mean),
            "std": list(self.std),
        }

    def normalised(self, images: torch.Tensor) -> torch.Tensor:
        """Return images ``[..., C, H, W]`` in [0, 1] as the encoder reads them."""
        mean, std = (images.new_tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        return (images - mean) / std

    def read(self, images: torch.Tensor) -> EncoderMaps:
        """Return embeddings and tokens of normalised images ``[B, C, H, W]`` of the input size."""
        raise NotImplementedError

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the embeddings ``[B, P, D]`` of normalised images ``[B, C, H, W]``; P = rows * columns."""
        return self.read(images).embeddings


def check_size(image_size: tuple[int, int], patch_size: tuple[int, int], name: str) -> None:
    """Validate that the patch divides the image size.

    Raises:
        ValueError: If it does not.
    """
    if any(size % patch or size <= 0 for size, patch in zip(image_size, patch_size, strict=True)):
        below = [max(size // patch, 1) * patch for size, patch in zip(image_size, patch_size, strict=True)]
        above = [-(-size // patch) * patch or patch for size, patch in zip(image_size, patch_size, strict=True)]
        msg = (
            f"image_size={tuple(image_size)} does not fit {name!r}: its patch is {patch_size[0]}x{patch_size[1]} "
            f"px and must divide (height, width). Sizes that fit: {tuple(below)} or {tuple(above)}."
        )
        raise ValueError(msg)
