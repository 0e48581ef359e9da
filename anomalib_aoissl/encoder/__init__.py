# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Encoders: timm models as "image -> patch embeddings and tokens", and those that the package brings."""

from .base import Encoder, EncoderMaps
from .choosing import create_encoder
from .pyramid import PyramidEncoder
from .vit import PatchEncoder

__all__ = ["Encoder", "EncoderMaps", "PatchEncoder", "PyramidEncoder", "create_encoder"]
