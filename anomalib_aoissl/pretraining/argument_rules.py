# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What the arguments of the pretraining callbacks may be."""

from __future__ import annotations

from typing import Literal, get_args

from anomalib_aoissl.plugin.arguments import (
    FLAG,
    PATH,
    SEED,
    SIZE,
    TEXT,
    Rule,
    choice,
    null_or,
    number,
    pair,
    span,
    whole,
)

Start = Literal["auto", "given", "whitened"]

_COUNT, _POSITIVE, _NOT_NEGATIVE, _SHARE = whole("(0, inf)"), number("(0, inf)"), number("[0, inf)"), number("[0, 1]")
_PATH = null_or(PATH)

RULES: dict[str, Rule] = {
    "max_epochs": _COUNT,
    "max_steps": Rule(
        "a whole number",
        _COUNT.fits,
        lambda value: value == -1 or value > 0,
        "be greater than 0, or -1 for no limit",
    ),
    "batch_size": _COUNT,
    "accumulate": _COUNT,
    "crops_per_image": _COUNT,
    "start": choice(*get_args(Start)),
    "start_noise_floor": _NOT_NEGATIVE,
    "position_scale": _NOT_NEGATIVE,
    "even_norm": FLAG,
    "structure": _SHARE,
    "gain": _NOT_NEGATIVE,
    "gamma": _NOT_NEGATIVE,
    "noise": _NOT_NEGATIVE,
    "blur": _NOT_NEGATIVE,
    "learning_rate": null_or(_POSITIVE),
    "weight_decay": _NOT_NEGATIVE,
    "betas": pair("[0, 1)"),
    "warmup": _SHARE,
    "gradient_clip": _NOT_NEGATIVE,
    "num_workers": whole("[0, inf)"),
    "memory_mb": _NOT_NEGATIVE,
    "seed": SEED,
    "probe_every": _COUNT,
    "probe_images": whole("[0, inf)"),
    "collapse_rank": _NOT_NEGATIVE,
    "collapse_checks": _COUNT,
    "save_to": _PATH,
    "cache_dir": _PATH,
    "progress_bar": FLAG,
}
"""What all callbacks take."""

MAE_RULES: dict[str, Rule] = {
    "crop_size": SIZE,
    "mask_ratio": _SHARE,
    "target": TEXT,  # names are validated where they are used
    "noise_floor": _NOT_NEGATIVE,
    "decoder_dims": _COUNT,
    "decoder_depth": whole("[0, inf)"),
    "decoder_heads": _COUNT,
    "zoom": span("(0, inf)"),
}

DINO_RULES: dict[str, Rule] = {
    "global_size": SIZE,
    "local_size": SIZE,
    "local_crops": whole("[0, inf)"),
    "global_zoom": span("(0, inf)"),
    "local_zoom": span("(0, inf)"),
    "outputs": _COUNT,
    "hidden": _COUNT,
    "bottleneck": _COUNT,
    "student_temperature": _POSITIVE,
    "teacher_temperature": _POSITIVE,
    "teacher_warmup_temperature": _POSITIVE,
    "teacher_warmup": _SHARE,
    "momentum": _SHARE,
    "center_momentum": _SHARE,
    "frozen_prototypes": _SHARE,
    "final_weight_decay": _NOT_NEGATIVE,
}

IBOT_RULES: dict[str, Rule] = {
    "mask_ratio": span("[0, 1]"),
    "mask_probability": _SHARE,
    "shared_head": FLAG,
    "patch_weight": _NOT_NEGATIVE,
}
