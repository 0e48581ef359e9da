# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What the arguments of `AOISSLSegmenter` may be."""

from __future__ import annotations

from anomalib_aoissl.models.argument_rules import MODEL_RULES
from anomalib_aoissl.plugin.arguments import Rule
from anomalib_aoissl.plugin.options import options_of

from .options import TrainingOptions

RULES: dict[str, Rule] = {**MODEL_RULES, "training": options_of(TrainingOptions)}
