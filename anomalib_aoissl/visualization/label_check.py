# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""A picture of masks to be checked by eye: each picture beside itself with its classes; needs no torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from anomalib_aoissl.data.describing.class_colours import palette
from anomalib_aoissl.data.indices import BACKGROUND_INDEX
from anomalib_aoissl.data.resizing import resize_mask

from .overlay import legend, overlay_mask

_WIDTH, _GAP, _CAPTION = 760, 8, 30
_GROUND, _TEXT = (24, 24, 24), (240, 240, 240)

Panel = tuple[np.ndarray, np.ndarray, str, str]
"""Picture ``[H, W, 3]`` uint8, mask ``[H, W]`` uint8, name, and what is to be said of it."""


def draw_masks(panels: Sequence[Panel], class_names: Sequence[str]) -> Image.Image:
    """Return each picture, beside it the same with its mask, below it its caption; a legend at the bottom."""
    rows = [_row(*panel, len(class_names)) for panel in panels]
    strip = legend(class_names, rows[0].width)
    return Image.fromarray(np.vstack([np.asarray(part) for part in (*rows, strip)]))


def outlined(picture: np.ndarray, mask: np.ndarray, num_classes: int) -> np.ndarray:
    """Return the picture ``[H, W, 3]`` uint8 with classes laid over it lightly, and their borders in full colour."""
    light = (0.6 * picture + 0.4 * overlay_mask(picture, mask, num_classes)).round().astype(np.uint8)
    inside = np.pad(mask, 1, mode="edge")
    moved = [inside[1:-1, 2:], inside[2:, 1:-1], inside[1:-1, :-2], inside[:-2, 1:-1]]
    border = np.any([mask != other for other in moved], axis=0) & (mask != BACKGROUND_INDEX)
    return np.where(border[..., np.newaxis], palette(num_classes)[mask], light)


def _row(picture: np.ndarray, mask: np.ndarray, name: str, text: str, num_classes: int) -> Image.Image:
    """Return one picture, with its mask beside it, and its caption."""
    height = round(_WIDTH * picture.shape[0] / picture.shape[1])
    small = np.array(Image.fromarray(picture).resize((_WIDTH, height), Image.Resampling.LANCZOS))
    row = Image.new("RGB", (2 * _WIDTH + _GAP, height + _CAPTION), _GROUND)
    row.paste(Image.fromarray(small), (0, 0))
    shown = outlined(small, resize_mask(mask, (height, _WIDTH)), num_classes)
    row.paste(Image.fromarray(shown), (_WIDTH + _GAP, 0))
    font = ImageFont.load_default(size=16)
    ImageDraw.Draw(row).text((8, height + 6), f"{name}   {text}", fill=_TEXT, font=font)
    return row
