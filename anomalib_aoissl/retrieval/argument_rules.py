# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What the arguments of `AOISSLRetrieval` may be."""

from __future__ import annotations

from anomalib_aoissl.models.argument_rules import MODEL_RULES
from anomalib_aoissl.plugin.arguments import Rule, choice, either, null_or, number, whole, wholes
from anomalib_aoissl.plugin.options import options_of

from .options import BankOptions, VoteOptions

RULES: dict[str, Rule] = {
    **MODEL_RULES,
    "blocks": either(whole("[1, inf)"), wholes()),
    "head": null_or(choice("pixel")),
    "vote": options_of(VoteOptions),
    "bank": options_of(BankOptions),
    "abstain": null_or(number("(0, 1)")),
}
