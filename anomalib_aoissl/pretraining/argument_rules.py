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
    HeadOptions,
    LoadingOptions,
    MAECropOptions,
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
    "head": options_of(HeadOptions),
    "teacher": options_of(TeacherOptions),
}

# --- 0.2.0 -----------------------------------------------------------------------------------------------------------

_GONE = (
    "accumulate",
    "structure",
    "weight_decay",
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

MAE_GONE = (*_GONE, "noise_floor")

DINO_GONE = (
    *_GONE,
    "local_zoom",
    "student_temperature",
    "center_momentum",
    "final_weight_decay",
    "teacher_warmup_temperature",
    "teacher_warmup",
)

IBOT_GONE = (*DINO_GONE, "shared_head", "mask_ratio", "mask_probability", "patch_weight")

_MOVED = {
    "crops_per_image": "crops.per_image",
    "gain": "light.gain",
    "gamma": "light.gamma",
    "learning_rate": "optimizer.learning_rate",
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
    "outputs": "head.outputs",
    "hidden": "head.hidden",
    "bottleneck": "head.bottleneck",
    "frozen_prototypes": "head.frozen",
    "teacher_temperature": "teacher.temperature",
    "momentum": "teacher.momentum",
}
