# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What the arguments of `AOISSLSegmenter` may be."""

from __future__ import annotations

import re

from anomalib_aoissl.plugin.arguments import MODEL_RULES, SEED, Rule, choice, either, null_or, number, whole

RULES: dict[str, Rule] = {
    **MODEL_RULES,
    "learning_rate": number("(0, inf)"),
    "validations": whole("[1, inf)"),
    "early_stopping": null_or(whole("[1, inf)")),
    "select": choice("best", "last"),
    "seed": SEED,
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
