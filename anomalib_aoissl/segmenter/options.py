# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Options of `AOISSLSegmenter`: how the decoder is trained."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from anomalib_aoissl.models.argument_rules import MODEL_RULES
from anomalib_aoissl.plugin.arguments import Rule, choice, either, null_or, number, whole
from anomalib_aoissl.plugin.options import Options, options_of


@dataclass(frozen=True)
class TrainingOptions(Options):
    """How the decoder is trained.

    Args:
        learning_rate: Peak of the decoder's learning rate.
        validations: Validations in a run, evenly spaced, where the trainer's arguments do not say how many.
        select: Weights that are kept: "best" validation mean IoU, or "last", which needs no validation images.
        budget: Steps, or time as DD:HH:MM:SS, for callers that hand the trainer no arguments, such as anomalib's
            benchmark; it replaces those of the trainer.
    """

    RULES: ClassVar[Mapping[str, Rule]] = {
        "learning_rate": number("(0, inf)"),
        "validations": whole("[1, inf)"),
        "select": choice("best", "last"),
        "budget": null_or(
            either(
                whole("[1, inf)"),
                Rule(
                    "text",
                    lambda value: isinstance(value, str),
                    lambda value: re.fullmatch(r"\d+:\d\d:\d\d:\d\d", value) is not None,
                    "be a time as DD:HH:MM:SS",
                ),
            )
        ),
    }

    learning_rate: float = 2e-3
    validations: int = 20
    select: Literal["best", "last"] = "best"
    budget: int | str | None = None


RULES: dict[str, Rule] = {**MODEL_RULES, "training": options_of(TrainingOptions)}
"""What the arguments of `AOISSLSegmenter` may be."""
