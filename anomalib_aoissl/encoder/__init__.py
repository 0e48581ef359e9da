# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""A timm vision transformer as image to patch tokens, and the shipped encoder."""

from .vit import PatchEncoder

__all__ = ["PatchEncoder"]
