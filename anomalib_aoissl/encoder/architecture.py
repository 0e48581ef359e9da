# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The plugin's own encoder in timm's registry: a small vision transformer with small patches, and its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from timm.models import VisionTransformer, build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.vision_transformer import checkpoint_filter_fn

__all__ = ["DEFAULT_ENCODER", "SHIPPED_WEIGHTS"]

DEFAULT_ENCODER = "aoissl_vit_tiny_patch8"
"""Name in timm's registry of the encoder that the models use where none is named."""

SHIPPED_WEIGHTS = Path(__file__).parent / "weights" / f"{DEFAULT_ENCODER}.safetensors"
"""The encoder's weights in half precision; `docs/model-card.md` says how they were trained."""

default_cfgs = generate_default_cfgs(  # timm looks weights and constants up under this name
    {
        f"{DEFAULT_ENCODER}.contextual_wirebond": {
            "file": str(SHIPPED_WEIGHTS),
            "input_size": (3, 512, 512),
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
            "num_classes": 0,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
            "license": "apache-2.0",
        }
    }
)


@register_model
def aoissl_vit_tiny_patch8(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """Return a transformer for thin structures: patches of 8 px, 192 dims, 4 blocks, 1.8 million weights."""
    arguments = {"img_size": 512, "patch_size": 8, "embed_dim": 192, "depth": 4, "num_heads": 3, **kwargs}
    return build_model_with_cfg(
        VisionTransformer,
        DEFAULT_ENCODER,
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        feature_cfg={"out_indices": 3, "feature_cls": "getter"},
        **arguments,
    )
