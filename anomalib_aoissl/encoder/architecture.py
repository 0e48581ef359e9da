# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The encoders that the package brings, in timm's registry, and their weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from timm.models import (
    PretrainedCfg,
    VisionTransformer,
    build_model_with_cfg,
    generate_default_cfgs,
    get_pretrained_cfg,
    register_model,
)
from timm.models.efficientnet import mobilenetv2_100
from timm.models.vision_transformer import checkpoint_filter_fn

DEFAULT_ENCODER = "aoissl_mobilenetv2"
"""Name in timm's registry of the encoder that the models use where none is named."""

SHIPPED_TRANSFORMER = "aoissl_vit_tiny_patch8"
"""Name of the vision transformer that comes with the package: what pretraining starts from."""

SHIPPED = {
    name: Path(__file__).parent / "weights" / f"{name}.safetensors" for name in (DEFAULT_ENCODER, SHIPPED_TRANSFORMER)
}
"""Files of the weights, in half precision; `docs/model-card.md` says where they come from."""

default_cfgs = generate_default_cfgs(  # timm looks weights and constants up under this name
    {
        f"{SHIPPED_TRANSFORMER}.contextual_wirebond": {
            "file": str(SHIPPED[SHIPPED_TRANSFORMER]),
            "input_size": (3, 512, 512),
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
            "num_classes": 0,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
            "license": "apache-2.0",
        },
        f"{DEFAULT_ENCODER}.torchvision_in1k": {
            "file": str(SHIPPED[DEFAULT_ENCODER]),
            "input_size": (3, 512, 512),
            "mean": (0.485, 0.456, 0.406),
            "std": (0.229, 0.224, 0.225),
            "num_classes": 0,
            "first_conv": "conv_stem",
            "classifier": "classifier",
            "license": "bsd-3-clause",
        },
    }
)


@register_model
def aoissl_vit_tiny_patch8(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """Return a transformer for thin structures: patches of 8 px, 192 dims, 4 blocks, 1.8 million weights."""
    arguments = {"img_size": 512, "patch_size": 8, "embed_dim": 192, "depth": 4, "num_heads": 3, **kwargs}
    return build_model_with_cfg(
        VisionTransformer,
        SHIPPED_TRANSFORMER,
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        feature_cfg={"out_indices": 3, "feature_cls": "getter"},
        **arguments,
    )


@register_model
def aoissl_mobilenetv2(pretrained: bool = False, **kwargs: Any) -> Any:
    """Return timm's ``mobilenetv2_100``, whose weights of ImageNet come with the package."""
    if not isinstance(kwargs.get("pretrained_cfg"), (dict, PretrainedCfg)):  # else those of a folder of weights
        kwargs["pretrained_cfg"] = get_pretrained_cfg(DEFAULT_ENCODER)
    return mobilenetv2_100(pretrained=pretrained, **kwargs)
