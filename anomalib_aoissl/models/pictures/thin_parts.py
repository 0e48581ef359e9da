# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""A warning where parts of the training masks are too thin to be seen at the model's size."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from anomalib_aoissl.data.indices import BACKGROUND_INDEX, IGNORE_INDEX
from anomalib_aoissl.pixel_head.learning.sample import evenly_taken

logger = logging.getLogger(__name__)

_LEAST = 2
"""Px below which a part is thin."""

_SHARE = 0.2
"""Of a class's pixels that may be thin: corners are."""

_MASKS = 8
"""Masks that are looked at."""


@dataclass(frozen=True)
class ThinClass:
    """A class with thin parts.

    Attributes:
        name: Its name.
        share: Of its pixels, those in parts that are thinner than 2 px at the model's size.
        width: Median width of these parts at the model's size, px.
        native: The same at the pictures' own size, px.
    """

    name: str
    share: float
    width: float
    native: float


def thin_classes(masks: Sequence[np.ndarray], size: tuple[int, int], names: Sequence[str]) -> list[ThinClass]:
    """Return the classes of which many pixels are in parts that are thinner than 2 px at the model's size.

    A pixel is in such a part where no block that becomes 2x2 px lies in its class and covers it.

    Args:
        masks: Class indices ``[H, W]`` at the pictures' own size, 255 is ignored.
        size: (height, width) of the model's input, px.
        names: Of the classes.
    """
    found = []
    for index, name in enumerate(names):
        if index == BACKGROUND_INDEX:
            continue
        pixels, thin, widths = 0, 0, []
        for mask in masks:
            scales = [new / old for new, old in zip(size, mask.shape, strict=True)]
            inside = (mask == index).astype(np.uint8)
            if min(scales) >= 1 or not inside.any():
                continue
            lost = inside & ~_opened(inside | (mask == IGNORE_INDEX), [math.ceil(_LEAST / scale) for scale in scales])
            pixels, thin = pixels + int(inside.sum()), thin + int(lost.sum())
            widths += [(width * min(scales), width) for width in _widths(inside, lost)]
        if widths and thin / pixels > _SHARE:  # of round parts corners alone are lost, which have no middle line
            width, native = (float(np.median(part)) for part in zip(*widths, strict=True))
            found.append(ThinClass(name, thin / pixels, width, native))
    return found


def warn_of_thin_parts(dataset: object, size: tuple[int, int], names: Sequence[str]) -> None:
    """Warn once where masks of a dataset of ours have parts that the model's (height, width) px cannot show."""
    paths = [path for path in getattr(dataset, "samples", {}).get("mask_path", []) if path]
    read = getattr(getattr(dataset, "mask_format", None), "read", None)
    if read is None or not paths:
        return
    masks = [np.asarray(read(paths[index], len(names))) for index in evenly_taken(len(paths), _MASKS)]
    thin = thin_classes(masks, size, names)
    if not thin:
        return
    parts = "; ".join(
        f"{one.name}: {one.share:.0%} of its pixels, {one.width:.1f} px wide there, {one.native:.1f} px in the picture"
        for one in thin
    )
    logger.warning(
        "At the model's %dx%d px parts are thinner than %d px, and vanish (%s; pictures of %dx%d px). Train at the "
        "pictures' own size, in tiles: --model.tiling.size '[%d,%d]'; or raise --model.image_size.",
        *(*size, _LEAST, parts, *masks[0].shape, *size),
    )


def _opened(inside: np.ndarray, sides: Sequence[int]) -> np.ndarray:
    """Return the pixels ``[H, W]`` uint8 that a block of (height, width) px covers which lies inside.

    What is cut off by the border goes on behind it.
    """
    (down, across), block = sides, np.ones(tuple(sides), np.uint8)
    padded = np.pad(inside, ((down, down), (across, across)), mode="edge")
    kept = cv2.dilate(cv2.erode(padded, block, anchor=(0, 0)), block, anchor=(across - 1, down - 1))
    return np.asarray(kept[down:-down, across:-across], np.uint8)


def _widths(inside: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Return the widths, px, of what lies inside along its middle lines, where another mask is set."""
    distance = cv2.distanceTransform(np.pad(inside, 1, mode="edge"), cv2.DIST_L2, 5)[1:-1, 1:-1]
    middle = (distance == cv2.dilate(distance, np.ones((3, 3)))) & (where > 0)
    widths: np.ndarray = 2 * distance[middle] - 1
    return np.maximum(widths, 1.0)
