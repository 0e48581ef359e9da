# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Files to arrays: one reader of pictures and masks for training, prediction and the inferencer; needs no torch."""

from .masks import MASK_SUFFIXES, Colour, read_mask
from .pictures import (
    ColorOrder,
    check_one_size,
    image_size,
    is_grey,
    orientation_of,
    pack_channels,
    planes_of_array,
    read_image,
    read_lighting_channels,
    turn_shows_in_size,
    validate_bit_depth,
    with_planes,
)
from .raster import IMAGE_SUFFIXES, turned

__all__ = [
    "IMAGE_SUFFIXES",
    "MASK_SUFFIXES",
    "ColorOrder",
    "Colour",
    "check_one_size",
    "image_size",
    "is_grey",
    "orientation_of",
    "pack_channels",
    "planes_of_array",
    "read_image",
    "read_lighting_channels",
    "read_mask",
    "turn_shows_in_size",
    "turned",
    "validate_bit_depth",
    "with_planes",
]
