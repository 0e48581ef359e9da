# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""A contact sheet: images with their novelty over them, in the order in which to label them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_WIDTH, _CAPTION, _GAP, _COLUMNS, _FOOTER = 320, 46, 10, 4, 24
_GROUND, _TEXT, _FAINT = (24, 24, 24), (240, 240, 240), (170, 170, 170)
_NOVEL = np.array([255, 40, 160], dtype=np.float32)  # unlike the colours of these materials
_ALPHA = 0.75


def overlay_novelty(picture: np.ndarray, novelty: np.ndarray, largest: float) -> np.ndarray:
    """Return the picture ``[H, W, 3]`` uint8, coloured the more the more novel it is.

    Args:
        picture: ``[H, W, 3]`` uint8.
        novelty: ``[h, w]``, of any size.
        largest: Novelty of full colour, greater than 0.
    """
    size = (picture.shape[1], picture.shape[0])
    values = np.array(Image.fromarray(novelty.astype(np.float32)).resize(size, Image.Resampling.BILINEAR))
    alpha = _ALPHA * np.clip(values / largest, 0, 1)[..., np.newaxis]
    return ((1 - alpha) * picture + alpha * _NOVEL).round().astype(np.uint8)


def contact_sheet(tiles: Sequence[tuple[np.ndarray, str, str]], footer: str = "") -> Image.Image:
    """Return pictures ``[H, W, 3]`` uint8 in rows, each with its two lines of text below it; a line below all."""
    heights = [round(_WIDTH * picture.shape[0] / picture.shape[1]) for picture, _, _ in tiles]
    height, columns = max(heights) + _CAPTION + _GAP, min(_COLUMNS, len(tiles))
    size = (columns * (_WIDTH + _GAP) + _GAP, -(-len(tiles) // columns) * height + _GAP + _FOOTER * bool(footer))
    sheet = Image.new("RGB", size, _GROUND)
    draw = ImageDraw.Draw(sheet)
    for index, (picture, first, second) in enumerate(tiles):
        left, top = _GAP + index % columns * (_WIDTH + _GAP), _GAP + index // columns * height
        small = Image.fromarray(picture).resize((_WIDTH, heights[index]), Image.Resampling.LANCZOS)
        sheet.paste(small, (left, top))
        below = top + heights[index]
        for text, down, colour, points in ((first, 4, _TEXT, 14), (second, 23, _FAINT, 13)):
            font = ImageFont.load_default(size=points)
            draw.text((left, below + down), fitted(text, font, _WIDTH), fill=colour, font=font)
    draw.text((_GAP, size[1] - _FOOTER), footer, fill=_FAINT, font=ImageFont.load_default(size=13))
    return sheet


def fitted(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """Return a text, its middle left out where it is wider than so many px."""
    if font.getlength(text) <= width:
        return text
    for left_out in range(1, len(text)):
        half = (len(text) - left_out) // 2
        short = f"{text[: len(text) - left_out - half]}...{text[len(text) - half :]}"
        if font.getlength(short) <= width:
            return short
    return ""
