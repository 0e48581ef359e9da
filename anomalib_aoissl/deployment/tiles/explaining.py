# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Why pixels of a picture in tiles are of their class: each is explained by the tile that sees it best; needs no torch.

That is the tile in which it lies furthest from the border. Where no other tile shows the pixel, the tiled mask says the
same; elsewhere that mask is a blend, in which this tile counts most.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from anomalib_aoissl.bank.explaining import (
    PICTURE_PX,
    TILE_PX,
    AskedModel,
    Box,
    Evidence,
    Explanation,
    Places,
    box_around,
    evidence_of,
    explained,
    places_in,
)
from anomalib_aoissl.data.reading import image_size

from .tiling import Tiling


def explained_tiles(
    model: AskedModel, planes: np.ndarray, region: np.ndarray, tiling: Tiling, shown: Box | None = None
) -> tuple[Explanation, np.ndarray]:
    """Return why the pixels of a region are of their classes, and class indices ``[H, W]`` of what was looked at.

    Args:
        model: The model of a tile.
        planes: The picture ``[C, H, W]``.
        region: ``[H, W]`` bool, not empty.
        tiling: How the picture is cut.
        shown: Box around the region whose classes are asked for as well; elsewhere they may be 0.
    """
    grid, box = tiling.grid((region.shape[0], region.shape[1])), box_around(region)
    classes, looked = np.zeros(region.shape, np.uint8), region.copy()
    if shown is not None:
        top, left, height, width = shown
        looked[top : top + height, left : left + width] = True
    parts: list[Evidence] = []
    for tile in grid:
        rows, columns = grid.inner(tile)
        if not looked[rows, columns].any():
            continue
        part = grid.cut(planes, tile)
        answer = model.answer(part)
        inside = (
            slice(rows.start - tile.top, rows.stop - tile.top),
            slice(columns.start - tile.left, columns.stop - tile.left),
        )
        classes[rows, columns] = answer.class_map[inside]
        if region[rows, columns].any():
            own = np.zeros(tiling.size, bool)
            own[inside] = region[rows, columns]
            parts.append(evidence_of(model, part, own, answer))
    return explained(model, parts, box), classes


def tiled_places(tiling: Tiling | None, size: tuple[int, int], patch_size: tuple[int, int]) -> Places:
    """Return where entries lie in labelled images, in px of the images themselves where their files are found.

    Args:
        tiling: How the labelled images were cut; None where they were resized as a whole.
        size: (height, width) of the model's input, px.
        patch_size: (height, width) of a patch, px.
    """
    within, size_of = places_in(size, patch_size), cache(_size_of)
    if tiling is None:
        return within
    patches = (size[0] // patch_size[0]) * (size[1] // patch_size[1])

    def place(image: str, position: int) -> tuple[Box, int | None, str]:
        number, patch = divmod(position, patches)
        box, *_ = within(image, patch)
        found = size_of(image)
        grid = None if found is None else tiling.grid(found)
        if grid is None or number >= len(grid):  # another picture has this name now
            return box, number, TILE_PX
        tile = grid.tile(number)
        return (tile.top + box[0], tile.left + box[1], *box[2:]), None, PICTURE_PX

    return place


def _size_of(image: str) -> tuple[int, int] | None:
    """Return (height, width) px of a labelled image; None where its file is not here."""
    try:
        return image_size(image)
    except ValueError:
        return None
