# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""One colour for each class, in pictures and in the palettes of mask files; needs no torch."""

from __future__ import annotations

import colorsys
from pathlib import Path

import numpy as np
from PIL import Image

from ..files import save_picture
from ..indices import IGNORE_INDEX

# Okabe and Ito, Color Universal Design, 2008: distinct for colour-blind readers too; background is black.
_OKABE_ITO = (
    (0, 0, 0),
    (0, 158, 115),
    (230, 159, 0),
    (86, 180, 233),
    (204, 121, 167),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
)
_IGNORE_COLOUR = (255, 255, 255)
_GOLDEN_RATIO = 0.618034


def palette(num_classes: int) -> np.ndarray:
    """Return a colour for each mask value, ``[256, 3]`` uint8; the classes' are distinct, ignore is white."""
    colours = np.full((256, 3), 128, dtype=np.uint8)
    colours[: len(_OKABE_ITO)] = _OKABE_ITO
    for index in range(len(_OKABE_ITO), min(num_classes, IGNORE_INDEX)):
        hue = (index * _GOLDEN_RATIO) % 1.0  # consecutive hues lie far apart
        colours[index] = [round(255 * v) for v in colorsys.hsv_to_rgb(hue, 0.65, 0.95 - 0.3 * (index % 2))]
    colours[IGNORE_INDEX] = _IGNORE_COLOUR
    return colours


def write_class_index_png(path: str | Path, mask: np.ndarray, num_classes: int, compress_level: int = 6) -> None:
    """Write a class-index mask as a palette PNG: programs read the indices, people see colours.

    Args:
        path: File to write, whole or not at all.
        mask: ``[H, W]`` uint8 class indices.
        num_classes: C.
        compress_level: 1 takes a tenth of a second for 25 megapixels.
    """
    image = Image.fromarray(np.ascontiguousarray(mask, dtype=np.uint8)).convert("P")
    image.putpalette(palette(num_classes).flatten().tolist())
    save_picture(path, image, format="PNG", compress_level=compress_level)
