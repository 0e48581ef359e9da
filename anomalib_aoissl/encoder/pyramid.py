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

__all__ = ["PyramidEncoder"]

_FINE, _PATCH, _COARSE = 4, 8, 16
"""Strides of the feature maps that are read, px; the second one is the patch."""

_PARTS = ("feature_info", "forward_intermediates", "prune_intermediate_layers")
"""Attributes of a timm network with feature maps."""


class PyramidEncoder(Encoder):
    """A timm network whose feature maps at strides 4, 8 and 16 are read, each of unit length at every place.

    A patch of 8x8 px has as its embedding the four features at stride 4, the one at stride 8 and, bilinear, the one at
    stride 16. The first two tell what the patch shows, the last one where it lies; both halves weigh the same in a
    similarity. A token stands for 4x4 px: the three maps, bilinear. Networks without a map at stride 16 are read at the
    other two.

    Args:
        encoder: Name that ``timm.create_model`` takes, or the mapping that `describe` returns.
        image_size: (height, width) of the input in px, multiples of 8.
        in_channels: Planes of the input; timm adapts the first layer of pretrained weights.
        pretrained: Load the weights that belong to the name.

    Raises:
        ValueError: If the name is unknown, has no weights or no such feature maps, or the size does not fit.
    """

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
        check_size(image_size, self.patch_size, str(encoder))
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
        self.embed_dim = (_PATCH // _FINE) ** 2 * widths[0] + sum(widths[1:])
        self.token_dim = sum(widths)
        self._check_maps(encoder)

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
        """Strides that are read, and which parts of an embedding weigh the same."""
        return [self.strides, "details and surroundings"]

    def read(self, images: torch.Tensor) -> EncoderMaps:
        """Return embeddings ``[B, P, D]`` of patches, and tokens ``[B, T, H / 4, W / 4]``."""
        fine, patch, *coarse = (of_unit_length(maps, dim=1) for maps in self._maps(images))
        each = _PATCH // _FINE  # features at stride 4 along a patch
        details = [functional.pixel_unshuffle(fine, each) / each, patch]  # each of unit length, so 2 ** 0.5 together
        around = [2**0.5 * of_unit_length(_enlarged(maps, _COARSE // _PATCH, patch.shape), dim=1) for maps in coarse]
        embeddings = torch.cat([*details, *around], dim=1)
        enlarged = [
            _enlarged(maps, stride // _FINE, fine.shape)
            for maps, stride in zip((patch, *coarse), self.strides[1:], strict=True)
        ]
        tokens = torch.cat([fine, *enlarged], dim=1)
        return EncoderMaps(embeddings.flatten(2).transpose(1, 2), tokens)

    def _maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Return the feature maps that are read, the finest first."""
        maps: list[torch.Tensor] = self.pyramid.forward_intermediates(
            images, indices=list(self.indices), stop_early=True, intermediates_only=True
        )
        return maps

    @torch.no_grad()
    def _check_maps(self, encoder: str | Mapping[str, Any]) -> None:
        """Validate that images of the input size give maps of the strides; some networks take few sizes only.

        Raises:
            ValueError: If they do not.
        """
        height, width = self.image_size
        try:
            found: Any = [
                tuple(maps.shape[-2:]) for maps in self._maps(torch.zeros(1, self.in_channels, height, width))
            ]
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
