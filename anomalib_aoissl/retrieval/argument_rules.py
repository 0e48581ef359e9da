# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What the arguments of `AOISSLRetrieval` may be."""

from __future__ import annotations

from pathlib import Path

from anomalib_aoissl.plugin.arguments import (
    FLAG,
    MODEL_RULES,
    SEED,
    TEXT,
    Rule,
    choice,
    either,
    null_or,
    number,
    whole,
    wholes,
)

RULES: dict[str, Rule] = {
    **MODEL_RULES,
    "normalize": FLAG,
    "blocks": either(whole("[1, inf)"), wholes()),
    "head": null_or(choice("pixel")),
    "k": whole("[1, inf)"),
    "temperature": number("(0, inf)"),
    "aggregation": TEXT,  # the names are validated where they are used
    "retrieval": TEXT,
    "search": TEXT,
    "bank": null_or(Rule("a path", lambda value: isinstance(value, str | Path) and bool(str(value)))),
    "bank_size": null_or(either(whole("[1, inf)"), TEXT)),
    "bank_precision": TEXT,
    "seed": SEED,
    "abstain": null_or(number("(0, 1)")),
}
