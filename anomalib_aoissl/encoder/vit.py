# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""`PatchEncoder`: any timm vision transformer as "image -> patch tokens"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import timm
import torch
from timm.models import VisionTransformer
from torch.nn import functional

from .architecture import SHIPPED_TRANSFORMER
from .base import Encoder, EncoderMaps, check_size
from .creating import creation_error, described, parse_description, same_weights

WINDOWS = (5, 13)
"""Patches across, and down, whose means stand beside each token."""

_TOKEN_BLOCKS = 2
"""Evenly spaced blocks whose tokens the pixel head reads."""

_PARTS = ("blocks", "patch_embed", "num_prefix_tokens", "embed_dim", "forward_intermediates")
"""Attributes of a plain vision transformer of timm."""


class NoTransformerError(ValueError):
    """A timm model that is no plain vision transformer."""

    def __init__(self, name: str, cause: object) -> None:
        super().__init__(
            f"encoder={name!r} is no plain vision transformer ({cause}). "
            "Choose one, for instance vit_tiny_patch16_224, deit_small_patch16_224 or vit_small_patch14_dinov2."
        )


class PatchEncoder(Encoder):
    """A timm vision transformer that gives one embedding for each patch.

    Args:
        encoder: Name that ``timm.create_model`` takes: an architecture, ``hf-hub:...`` or ``local-dir:/path``; or a
            mapping ``{"architecture": name, "model_args": {...}}``, the form that checkpoints hold.
        image_size: (height, width) of the input in px; the patch size must divide both.
        in_channels: Planes of the input; timm adapts the first layer of pretrained weights.
        pretrained: Load the weights that belong to the name.

    Raises:
        ValueError: If the name is unknown, no vision transformer, has no weights, or the size does not fit.
    """

    def __init__(
        self,
        encoder: str | Mapping[str, Any] = SHIPPED_TRANSFORMER,
        *,
        image_size: tuple[int, int] = (512, 512),
        in_channels: int = 3,
        pretrained: bool = True,
    ) -> None:
        super().__init__()
        self.vit: Any = create_vit(encoder, image_size=image_size, in_channels=in_channels, pretrained=pretrained)
        self.image_size = image_size
        self.in_channels = in_channels
        self.patch_size: tuple[int, int] = tuple(self.vit.patch_embed.patch_size)
        check_size(image_size, self.patch_size, parse_description(encoder)[0])
        self.token_blocks = sorted(set(even_blocks(len(self.vit.blocks), _TOKEN_BLOCKS)))
        self.embed_dim = int(self.vit.embed_dim)
        self.token_dim = (1 + len(WINDOWS)) * int(self.vit.embed_dim) * len(self.token_blocks)

    @property
    def network(self) -> Any:
        """The transformer."""
        return self.vit

    @property
    def signature(self) -> list[Any]:
        """Block, final norm and patch."""
        return [[len(self.vit.blocks) - 1], True, self.patch_size]

    def read(self, images: torch.Tensor) -> EncoderMaps:
        """Return the embeddings of the last block, and tokens of two evenly spaced blocks with the means around them.

        Prefix tokens are left out.
        """
        blocks = self.tokens_of(images, self.token_blocks)  # [B, P, D] each, the last block at the end
        tokens = torch.cat(blocks, dim=-1).transpose(1, 2)
        return EncoderMaps(blocks[-1], with_means(tokens.unflatten(2, self.grid_size)))

    def tokens_of(self, images: torch.Tensor, blocks: Sequence[int]) -> list[torch.Tensor]:
        """Return the patch tokens ``[B, P, D]`` of each of the blocks, by rising index, without prefix tokens."""
        features: list[torch.Tensor] = self.vit.forward_intermediates(
            images,
            indices=list(blocks),
            norm=True,
            stop_early=True,
            output_fmt="NLC",
            intermediates_only=True,
        )
        return features


def with_means(tokens: torch.Tensor) -> torch.Tensor:
    """Return tokens ``[B, D, rows, columns]`` and their means over 5x5 and 13x13, ``[B, 3 * D, rows, columns]``.

    At the border the mean is over the tokens that there are.
    """
    means = [
        functional.avg_pool2d(tokens, window, stride=1, padding=window // 2, count_include_pad=False)
        for window in WINDOWS
    ]
    return torch.cat([tokens, *means], dim=1)


def create_vit(
    encoder: str | Mapping[str, Any],
    *,
    image_size: tuple[int, int],
    in_channels: int,
    pretrained: bool,
) -> VisionTransformer:
    """Return the timm model of an encoder's name or description.

    Raises:
        ValueError: If the name is unknown, no vision transformer, or its weights cannot be loaded.
    """
    name, model_args, constants = parse_description(encoder)
    try:
        with same_weights():
            vit: Any = timm.create_model(
                name, pretrained=pretrained, img_size=image_size, in_chans=in_channels, num_classes=0, **model_args
            )
    except Exception as error:
        if isinstance(error, TypeError) and "img_size" in str(error):
            raise NoTransformerError(name, error) from error
        raise creation_error(name, pretrained, error) from error
    if any(not hasattr(vit, part) for part in _PARTS):
        raise NoTransformerError(name, f"{type(vit).__name__} has no patch tokens")
    return described(vit, model_args, constants)


def even_blocks(depth: int, count: int) -> list[int]:
    """Return ``count`` evenly spaced block indices, the last block among them; some twice where there are fewer.

    >>> even_blocks(12, 4), even_blocks(6, 4), even_blocks(2, 4)
    ([2, 5, 8, 11], [1, 2, 4, 5], [0, 0, 1, 1])
    """
    return [-(-depth * (index + 1) // count) - 1 for index in range(count)]
