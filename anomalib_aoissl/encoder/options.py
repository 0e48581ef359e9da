# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""`EncoderOptions`: which encoder a model has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from anomalib_aoissl.plugin.arguments import FLAG, NUMBERS, TEXT, Rule, null_or
from anomalib_aoissl.plugin.options import Options

from .architecture import DEFAULT_ENCODER


@dataclass(frozen=True)
class EncoderOptions(Options):
    """A network of timm.

    Args:
        architecture: Its timm name: an architecture, ``local-dir:/path`` with the weights that pretraining wrote, or
            ``hf-hub:...``.
        pretrained: Load the weights that belong to the name; false gives random ones.
        model_args: Further arguments of ``timm.create_model``.
        mean: Mean of each plane for the normalisation of images; null for that of the weights.
        std: Standard deviation of each plane, likewise.
    """

    RULES: ClassVar[Mapping[str, Rule]] = {
        "architecture": TEXT,
        "pretrained": FLAG,
        "model_args": null_or(Rule("a mapping", lambda value: isinstance(value, Mapping))),
        "mean": null_or(NUMBERS),
        "std": null_or(NUMBERS),
    }

    architecture: str = DEFAULT_ENCODER
    pretrained: bool = True
    model_args: dict[str, Any] | None = None
    mean: list[float] | None = None
    std: list[float] | None = None

    @property
    def description(self) -> dict[str, Any]:
        """The mapping that `create_encoder` takes."""
        given = {"model_args": self.model_args, "mean": self.mean, "std": self.std}
        return {"architecture": self.architecture, **{k: v for k, v in given.items() if v is not None}}
