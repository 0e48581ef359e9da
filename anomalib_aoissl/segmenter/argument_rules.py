# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What the arguments of `AOISSLSegmenter` may be."""

from __future__ import annotations

import re
from typing import Any

from anomalib_aoissl.arguments import MODEL_RULES, SIZE, TEXT, Rule, choice, either, null_or, number, whole


def _are_weights(value: Any) -> bool:
    return isinstance(value, str) or all(number("[0, inf)").fits(weight) for weight in value)


RULES: dict[str, Rule] = {
    **MODEL_RULES,
    "head": TEXT,  # names are validated where they are used
    "head_channels": whole("[1, inf)"),
    "probe": whole("[0, inf)"),
    "loss": TEXT,
    "class_weights": null_or(
        Rule("a name or numbers", lambda value: isinstance(value, str | list | tuple), _are_weights, "be finite")
    ),
    "learning_rate": number("(0, inf)"),
    "encoder_rate": number("(0, 1]"),
    "layer_decay": number("(0, 1]"),
    "weight_decay": number("[0, inf)"),
    "warmup": number("[0, 1)"),
    "freeze": either(whole("[0, inf)"), choice("all")),
    "lora_rank": whole("[0, inf)"),
    "ema_decay": null_or(number("(0, 1)")),
    "crop_size": null_or(SIZE),
    "crops": whole("[0, inf)"),
    "augment": TEXT,
    "validations": whole("[1, inf)"),
    "early_stopping": null_or(whole("[1, inf)")),
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
