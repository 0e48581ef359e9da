# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What the page's model is made of; imports no torch until the model is built, so that the page opens at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anomalib_aoissl.retrieval.lightning_model import AOISSLRetrieval


@dataclass(frozen=True)
class ModelSettings:
    """What the page's model is made of; everything else is a model's default.

    Attributes:
        encoder: As `AOISSLRetrieval` takes it; None for the shipped one.
        image_size: (height, width) that pictures are resized to, px.
    """

    encoder: str | Mapping[str, Any] | None = None
    image_size: tuple[int, int] = (512, 512)

    def build(self, in_channels: int, **arguments: Any) -> AOISSLRetrieval:
        """Return the model, untrained, for pictures of so many planes."""
        from anomalib_aoissl.encoder.architecture import DEFAULT_ENCODER
        from anomalib_aoissl.retrieval.lightning_model import AOISSLRetrieval

        encoder = DEFAULT_ENCODER if self.encoder is None else self.encoder
        return AOISSLRetrieval(
            encoder=encoder if isinstance(encoder, str) else dict(encoder),
            image_size=self.image_size,
            in_channels=in_channels,
            **arguments,
        )
