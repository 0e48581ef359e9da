# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""`PyramidEncoder`: a timm network with feature maps at several strides, such as a convolutional one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import timm
import torch
from torch.nn import functional

from .architecture import DEFAULT_ENCODER
from .base import Encoder, EncoderMaps, check_size, of_unit_length
from .creating import creation_error, described, parse_description, same_weights

_FINE, _PATCH, _COARSE = 4, 8, 16
"""Strides of the feature maps that are read, px; the second one is the patch."""

_OCTAVES = 7
"""Octaves of the noise that tells how long features usually are."""

_PARTS = ("feature_info", "forward_intermediates", "prune_intermediate_layers")
"""Attributes of a timm network with feature maps."""


class PyramidEncoder(Encoder):
    """A timm network whose feature maps at strides 4, 8 and 16 are read.

    A patch of 8x8 px has as its embedding the four features at stride 4, the one at stride 8 and, bilinear, the one at
    stride 16. The first two tell what the patch shows, the last one where it lies; both halves weigh the same in a
    similarity. A feature x is divided by (|x|^2 + l^2)^0.5, where l is the usual length at its stride, and a last
    dimension makes the embedding as long as all others. So bare ground, whose features are short, is like other bare
    ground, whichever way noise turns them; a cosine alone would not see how short they are.

    A token stands for 4x4 px: the three maps, each of unit length at every place, bilinear. Networks without a map at
    stride 16 are read at the other two.

    Args:
        encoder: Name that ``timm.create_model`` takes, or the mapping that `describe` returns.
        image_size: (height, width) of the input in px, multiples of 8.
        in_channels: Planes of the input; timm adapts the first layer of pretrained weights.
        pretrained: Load the weights that belong to the name.

    Raises:
        ValueError: If the name is unknown, has no weights or no such feature maps, or the size does not fit.
    """

    border = 1  # convolutions see zeros beyond the image, which no labelled patch inside shows

    def __init__(
        self,
        encoder: str | Mapping[str, Any] = DEFAULT_ENCODER,
        *,
        image_size: tuple[int, int] = (512, 512),
        in_channels: int = 3,
        pretrained: bool = True,
    ) -> None:
        super().__init__()
        self.image_size, self.in_channels, self.patch_size = image_size, in_channels, (_PATCH, _PATCH)
        check_size(image_size, self.patch_size, parse_description(encoder)[0])
        self.pyramid: Any = _create(encoder, image_size, in_channels, pretrained)
        stages = {
            stage["reduction"]: (index, stage["num_chs"]) for index, stage in enumerate(self.pyramid.feature_info)
        }
        self.strides = [stride for stride in (_FINE, _PATCH, _COARSE) if stride in stages]
        if self.strides[:2] != [_FINE, _PATCH]:
            msg = (
                f"encoder={encoder!r}: its feature maps have the strides {sorted(stages)}, and 4 and 8 px are needed. "
                "Choose another one, for instance mobilenetv2_100, resnet18 or convnext_atto."
            )
            raise ValueError(msg)
        self.indices, widths = zip(*(stages[stride] for stride in self.strides), strict=True)
        self.pyramid.prune_intermediate_layers(list(self.indices), prune_head=True)
        self.embed_dim = (_PATCH // _FINE) ** 2 * widths[0] + sum(widths[1:]) + 1
        self.token_dim = sum(widths)
        maps = self._checked_maps(encoder, _noise(image_size).expand(1, in_channels, -1, -1))
        self.lengths: torch.Tensor  # at each stride, the root of the mean square
        self.register_buffer("lengths", torch.stack([_squared(one).mean().sqrt() for one in maps]).clamp(min=1e-6))

    @property
    def network(self) -> Any:
        """The network, up to the last map that is read."""
        return self.pyramid

    @property
    def token_grid(self) -> tuple[int, int]:
        """Tokens of an image, (rows, columns)."""
        return self.image_size[0] // _FINE, self.image_size[1] // _FINE

    @property
    def signature(self) -> list[Any]:
        """Strides that are read, and what an embedding is made of."""
        return [self.strides, "details, surroundings, lengths"]

    def read(self, images: torch.Tensor) -> EncoderMaps:
        """Return embeddings ``[B, P, D]`` of patches, and tokens ``[B, T, H / 4, W / 4]``."""
        maps = self._maps(images)
        fine, patch, *coarse = (of_unit_length(one, dim=1) for one in maps)
        enlarged = [
            _enlarged(one, stride // _FINE, fine.shape)
            for one, stride in zip((patch, *coarse), self.strides[1:], strict=True)
        ]
        tokens = torch.cat([fine, *enlarged], dim=1)
        return EncoderMaps(self._embeddings(maps).flatten(2).transpose(1, 2), tokens)

    def _embeddings(self, maps: list[torch.Tensor]) -> torch.Tensor:
        """Return the embeddings ``[B, D, rows, columns]`` of patches, all of the same length, from the feature maps."""
        fine, patch, *coarse = (
            one / (_squared(one) + length**2).sqrt() for one, length in zip(maps, self.lengths, strict=True)
        )
        each = _PATCH // _FINE  # features at stride 4 along a patch
        details = [functional.pixel_unshuffle(fine, each) / each, patch]  # each of length 1 at most
        around = [2**0.5 * _enlarged(one, _COARSE // _PATCH, patch.shape) for one in coarse]
        parts = torch.cat([*details, *around], dim=1)
        missing = 2.0 * (1 + len(coarse)) - _squared(parts)  # to the square of the length that none exceeds
        return torch.cat([parts, missing.clamp(min=0).sqrt()], dim=1)

    def _maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Return the feature maps that are read, the finest first."""
        maps: list[torch.Tensor] = self.pyramid.forward_intermediates(
            images, indices=list(self.indices), stop_early=True, intermediates_only=True
        )
        return maps

    @torch.no_grad()
    def _checked_maps(self, encoder: str | Mapping[str, Any], images: torch.Tensor) -> list[torch.Tensor]:
        """Return the maps of images of the input size, which have the strides; some networks take few sizes only.

        Raises:
            ValueError: If they have not.
        """
        height, width = self.image_size
        maps: list[torch.Tensor] = []
        try:
            maps = self._maps(images)
            found: Any = [tuple(one.shape[-2:]) for one in maps]
            fits = all(
                side // stride <= cells <= -(-side // stride)  # networks round down or up
                for stride, cell in zip(self.strides, found, strict=True)
                for side, cells in zip(self.image_size, cell, strict=True)
            )
        except (AssertionError, RuntimeError, ValueError) as error:  # what timm's networks raise
            found, fits = error, False
        if not fits:
            msg = (
                f"encoder={encoder!r} cannot read images of {height}x{width} px (its maps at strides {self.strides}: "
                f"{found}). Choose another image_size, or another encoder, for instance mobilenetv2_100 or resnet18."
            )
            raise ValueError(msg)
        return maps


def _noise(size: tuple[int, int]) -> torch.Tensor:
    """Return noise ``[1, 1, H, W]`` of deviation 1 with as much in each octave, as natural images have it [0].

    It is always the same.

    [0]: Field, Relations between the statistics of natural images and the response properties of cortical cells, 1987.
    """
    random = torch.Generator().manual_seed(0)
    noise = torch.zeros(1, 1, *size)
    for octave in range(_OCTAVES):
        values = torch.randn(1, 1, *(max(side >> octave, 1) for side in size), generator=random)
        noise += functional.interpolate(values, size, mode="bilinear", align_corners=False)
    return noise / noise.std()


def _squared(features: torch.Tensor) -> torch.Tensor:
    """Return the squared length ``[B, 1, rows, columns]`` of features ``[B, D, rows, columns]``."""
    return (features * features).sum(dim=1, keepdim=True)


def _enlarged(maps: torch.Tensor, factor: int, size: torch.Size) -> torch.Tensor:
    """Return coarse maps at the places of fine ones, bilinear.

    What they cover beyond is left out; what they leave uncovered has the features beside it.
    """
    covered = [side * factor for side in maps.shape[-2:]]
    enlarged = functional.interpolate(maps, size=covered, mode="bilinear", align_corners=False)
    missing = [max(side - given, 0) for side, given in zip(size[-2:], covered, strict=True)]
    if any(missing):
        enlarged = functional.pad(enlarged, (0, missing[1], 0, missing[0]), mode="replicate")
    return enlarged[..., : size[-2], : size[-1]]


def _create(encoder: str | Mapping[str, Any], image_size: tuple[int, int], in_channels: int, pretrained: bool) -> Any:
    """Return the timm network of a name or description."""
    name, model_args, constants = parse_description(encoder)
    arguments = {"pretrained": pretrained, "in_chans": in_channels, "num_classes": 0, **model_args}
    try:
        with same_weights():
            network = _made(name, image_size, arguments).eval()
    except Exception as error:
        raise creation_error(name, pretrained, error) from error
    if any(not hasattr(network, part) for part in _PARTS):
        msg = f"{type(network).__name__} gives no feature maps by forward_intermediates"
        raise creation_error(name, pretrained, TypeError(msg))
    return described(network, model_args, constants)


def _made(name: str, image_size: tuple[int, int], arguments: Mapping[str, Any]) -> Any:
    """Return a timm network, for the image size where it is made for one, such as a Swin transformer."""
    try:
        return timm.create_model(name, img_size=image_size, **arguments)
    except TypeError as error:
        if "img_size" not in str(error):
            raise
        return timm.create_model(name, **arguments)
