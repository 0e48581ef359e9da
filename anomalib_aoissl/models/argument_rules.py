# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What the arguments of both models may be, and the options that both have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from anomalib_aoissl.deployment.tiles.light import FIXED_LIGHT
from anomalib_aoissl.deployment.tiles.tiling import Tiling
from anomalib_aoissl.encoder.options import EncoderOptions
from anomalib_aoissl.pixel_head.learning.views import Variation
from anomalib_aoissl.plugin.arguments import FLAG, SEED, SIZE, Rule, choice, whole
from anomalib_aoissl.plugin.options import Options, options_of


@dataclass(frozen=True)
class ViewOptions(Options):
    """What may differ between pictures of the same parts.

    Args:
        turned: Whether parts may lie in any direction. False for classes that differ by how they lie, such as a die
            that is turned by 90 degrees: labelled images are then learnt as they lie, neither turned nor mirrored.
        light: "picture" where lamp and exposure may change: the light is taken out of each picture. "fixed" where they
            never do and classes differ by how bright they are: grey levels stay as they are.
    """

    RULES: ClassVar[Mapping[str, Rule]] = {"turned": FLAG, "light": choice("picture", FIXED_LIGHT)}

    turned: bool = True
    light: Literal["picture", "fixed"] = "picture"

    @property
    def variation(self) -> Variation:
        """How views of a labelled image differ from it."""
        return Variation(turned=self.turned, lit=self.light != FIXED_LIGHT)


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
    "views": options_of(ViewOptions),
    "seed": SEED,
}
"""What both models take."""
