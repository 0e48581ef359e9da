# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What the arguments of the pretraining callbacks may be, and where their old names have gone."""

from __future__ import annotations

from typing import Literal, get_args

from anomalib_aoissl.plugin.arguments import PATH, SEED, Rule, choice, null_or, number, whole
from anomalib_aoissl.plugin.options import options_of
from anomalib_aoissl.pretraining.training.augmentation import Light

from .options import (
    CropOptions,
    DecoderOptions,
    DINOCropOptions,
    DINOOptimizerOptions,
    HeadOptions,
    LoadingOptions,
    MAECropOptions,
    MaskingOptions,
    OptimizerOptions,
    ProbeOptions,
    TeacherOptions,
)

Start = Literal["auto", "given", "whitened"]
Target = Literal["pixels", "normalized", "whitened"]

_COUNT = whole("(0, inf)")

RULES: dict[str, Rule] = {
    "max_epochs": _COUNT,
    "max_steps": Rule(
        "a whole number",
        _COUNT.fits,
        lambda value: value == -1 or value > 0,
        "be greater than 0, or -1 for no limit",
    ),
    "batch_size": _COUNT,
    "start": choice(*get_args(Start)),
    "crops": options_of(CropOptions),
    "light": options_of(Light),
    "optimizer": options_of(OptimizerOptions),
    "probe": options_of(ProbeOptions),
    "loading": options_of(LoadingOptions),
    "seed": SEED,
    "save_to": null_or(PATH),
    "cache_dir": null_or(PATH),
}
"""What all callbacks take."""

MAE_RULES: dict[str, Rule] = {
    **RULES,
    "crops": options_of(MAECropOptions),
    "mask_ratio": number("[0, 1]"),
    "target": choice(*get_args(Target)),
    "decoder": options_of(DecoderOptions),
}

DINO_RULES: dict[str, Rule] = {
    **RULES,
    "crops": options_of(DINOCropOptions),
    "optimizer": options_of(DINOOptimizerOptions),
    "head": options_of(HeadOptions),
    "teacher": options_of(TeacherOptions),
}

IBOT_RULES: dict[str, Rule] = {**DINO_RULES, "masking": options_of(MaskingOptions)}

# --- 0.2.0 -----------------------------------------------------------------------------------------------------------

GONE = (
    "accumulate",
    "start_noise_floor",
    "position_scale",
    "even_norm",
    "noise",
    "blur",
    "betas",
    "gradient_clip",
    "collapse_rank",
    "collapse_checks",
    "progress_bar",
)
"""Arguments of 0.2.0 that no callback takes any more."""

_MOVED = {
    "crops_per_image": "crops.per_image",
    "structure": "crops.structure",
    "gain": "light.gain",
    "gamma": "light.gamma",
    "learning_rate": "optimizer.learning_rate",
    "weight_decay": "optimizer.weight_decay",
    "warmup": "optimizer.warmup",
    "probe_every": "probe.every",
    "probe_images": "probe.images",
    "num_workers": "loading.num_workers",
    "memory_mb": "loading.memory_mb",
}

MAE_MOVED = {
    **_MOVED,
    "crop_size": "crops.size",
    "zoom": "crops.zoom",
    "decoder_dims": "decoder.dims",
    "decoder_depth": "decoder.depth",
    "decoder_heads": "decoder.heads",
}

DINO_MOVED = {
    **_MOVED,
    "global_size": "crops.global_size",
    "local_size": "crops.local_size",
    "local_crops": "crops.local_count",
    "global_zoom": "crops.zoom",
    "final_weight_decay": "optimizer.final_weight_decay",
    "outputs": "head.outputs",
    "hidden": "head.hidden",
    "bottleneck": "head.bottleneck",
    "frozen_prototypes": "head.frozen",
    "teacher_temperature": "teacher.temperature",
    "teacher_warmup_temperature": "teacher.warmup_temperature",
    "teacher_warmup": "teacher.warmup",
    "momentum": "teacher.momentum",
}

IBOT_MOVED = {
    **DINO_MOVED,
    "mask_ratio": "masking.ratio",
    "mask_probability": "masking.probability",
    "patch_weight": "masking.weight",
}
