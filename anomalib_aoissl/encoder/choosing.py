# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""`create_encoder`: the encoder of a timm name, whichever kind of network it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .base import Encoder
from .pyramid import PyramidEncoder
from .vit import NoTransformerError, PatchEncoder


def create_encoder(
    encoder: str | Mapping[str, Any],
    *,
    image_size: tuple[int, int],
    in_channels: int = 3,
    pretrained: bool = True,
) -> Encoder:
    """Return a `PatchEncoder` for a plain vision transformer, else a `PyramidEncoder`.

    Args:
        encoder: Name that ``timm.create_model`` takes, or the mapping that `Encoder.describe` returns.
        image_size: (height, width) of the input, px.
        in_channels: Planes of the input.
        pretrained: Load the weights that belong to the name.

    Raises:
        ValueError: If the name is unknown, has no weights, or neither patch tokens nor feature maps at strides 4 and 8;
            or if the size does not fit.
    """
    common: dict[str, Any] = {"image_size": image_size, "in_channels": in_channels, "pretrained": pretrained}
    try:
        return PatchEncoder(encoder, **common)
    except NoTransformerError:
        return PyramidEncoder(encoder, **common)
