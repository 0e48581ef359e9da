# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What the arguments of both models may be."""

from __future__ import annotations

from collections.abc import Mapping

from anomalib_aoissl.deployment.tiles.tiling import Tiling
from anomalib_aoissl.encoder.options import EncoderOptions
from anomalib_aoissl.plugin.arguments import SEED, SIZE, Rule, whole
from anomalib_aoissl.plugin.options import options_of

PRETRAINING = Rule(
    "mae, dino or ibot, a mapping with objective and arguments, or null",
    lambda value: value is None or isinstance(value, str | Mapping),
)

TILING = Rule(
    "tiles with size (height, width) and overlap, px, or null",
    lambda value: value is None or isinstance(value, Mapping | Tiling),
    lambda value: Tiling.of(value) is None or True,  # it says what is wrong by itself
)

MODEL_RULES: dict[str, Rule] = {
    "encoder": options_of(EncoderOptions, short="architecture"),
    "pretraining": PRETRAINING,
    "image_size": SIZE,
    "tiling": TILING,
    "in_channels": whole("[1, 64]"),
    "seed": SEED,
}
"""What both models take."""
