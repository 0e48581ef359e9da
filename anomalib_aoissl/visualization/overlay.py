# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Pictures of masks: one colour for each class, overlays, a legend, and class-index PNGs; needs no torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from anomalib_aoissl.data.describing.class_colours import palette
from anomalib_aoissl.data.indices import BACKGROUND_INDEX

_ALPHA = 0.6
_STRIPE = 2  # px, the least
_STRIP = 256  # rows that are converted at once
_LINE = 28  # px, the height of a line of the legend

ABSTAINED = "does not know"
"""What the legend calls the pixels for which a model abstains."""


def picture_of(planes: np.ndarray) -> np.ndarray:
    """Return planes ``[P, H, W]`` in [0, 1] as a picture ``[H, W, 3]`` uint8.

    Two lighting channels that were packed to three planes, and any number of planes other than three, are shown by
    their first in grey: their false colours would be taken for the classes' colours.
    """
    strips = [slice(first, first + _STRIP) for first in range(0, planes.shape[1], _STRIP)]  # a picture may be large
    packed = len(planes) == 3 and all(
        np.allclose(planes[2, rows], (planes[0, rows] + planes[1, rows]) / 2, atol=1e-3) for rows in strips
    )
    shown = planes if len(planes) == 3 and not packed else planes[[0]]
    picture = np.empty((*planes.shape[1:], 3), np.uint8)
    for rows in strips:
        picture[rows] = (255 * np.clip(shown[:, rows], 0, 1)).round().transpose(1, 2, 0)
    return picture


def overlay_mask(
    picture: np.ndarray, mask: np.ndarray, num_classes: int, colours: np.ndarray | None = None
) -> np.ndarray:
    """Return the picture ``[H, W, 3]`` uint8 with the classes' colours laid over it; background stays clear.

    Args:
        picture: ``[H, W, 3]`` uint8.
        mask: ``[H, W]`` uint8 class indices of the same size.
        num_classes: C.
        colours: ``[C, 3]`` uint8 of the classes in place of the usual ones.
    """
    coloured = _colours(num_classes, colours)[mask].astype(np.float32)  # [H, W, 3]
    covered = (mask != BACKGROUND_INDEX)[..., np.newaxis]
    blended = (1 - _ALPHA) * picture + _ALPHA * coloured
    return np.where(covered, blended, picture).round().astype(np.uint8)


def hatch(picture: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Return the picture ``[H, W, 3]`` uint8 with diagonal stripes over it where ``where`` ``[H, W]`` is true.

    White and black stripes take turns with gaps that leave the picture to be seen, so that they show on any ground.
    """
    stripe = max(_STRIPE, round(min(where.shape) / 200))  # still seen where a large picture is shown small
    rows, columns = np.indices(where.shape)
    phase = (rows + columns) % (4 * stripe)
    striped = picture.copy()
    striped[where & (phase < stripe)] = 255
    striped[where & (phase >= stripe) & (phase < 2 * stripe)] = 0
    return striped


def legend(
    class_names: Sequence[str], width: int, *, abstains: bool = False, colours: np.ndarray | None = None
) -> Image.Image:
    """Return a strip ``width`` px wide with a coloured square and the name of each class; it wraps to more lines.

    With ``abstains`` a hatched square says what hatching means. The colours are those of `overlay_mask`.
    """
    font = ImageFont.load_default(size=round(_LINE * 0.5))
    shown = _colours(len(class_names), colours)
    places, left, top = [], 8, 0
    names = [*class_names, ABSTAINED] if abstains else list(class_names)
    for name in names:
        advance = _LINE + round(font.getlength(name)) + 16
        if left + advance > width and left > 8:
            left, top = 8, top + _LINE
        places.append((left, top))
        left += advance
    strip = Image.new("RGB", (width, top + _LINE), (24, 24, 24))
    draw = ImageDraw.Draw(strip)
    for index, (name, (x, y)) in enumerate(zip(names, places, strict=True)):
        box = (x, y + _LINE // 4, x + _LINE // 2, y + 3 * _LINE // 4)
        draw.rectangle(box, fill=tuple(int(v) for v in shown[index]), outline=(200, 200, 200))
        if index == len(class_names):
            side = _LINE // 2
            square = hatch(np.full((side, side, 3), 110, dtype=np.uint8), np.ones((side, side), dtype=bool))
            strip.paste(Image.fromarray(square), (box[0], box[1]))
        draw.text((x + round(_LINE * 0.75), y + _LINE // 2), name, fill="white", font=font, anchor="lm")
    return strip


def _colours(num_classes: int, colours: np.ndarray | None) -> np.ndarray:
    """Return a colour for each mask value, ``[256, 3]`` uint8: the usual ones, or those of the classes as given."""
    usual = palette(num_classes)
    if colours is not None:
        usual[: len(colours)] = colours
    return usual
