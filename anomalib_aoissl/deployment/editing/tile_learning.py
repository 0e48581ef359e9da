# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""A labelled picture that a model on the line learns in tiles; needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from anomalib_aoissl.bank.condensing import condensed
from anomalib_aoissl.bank.content import BankArrays, joined_entries, labelled_image
from anomalib_aoissl.bank.patches import patch_labels
from anomalib_aoissl.data.indices import IGNORE_INDEX
from anomalib_aoissl.pixel_head.learning.sample import PixelSample
from anomalib_aoissl.pixel_head.learning.views import view_light

from ..graph.bank import BankSettings
from ..graph.head import HeadContent
from ..tiles.light import Moments, thinned
from ..tiles.tiling import Tiling, chosen_tiles
from .refitting import labelled_pixels

_TILES = 16
"""Tiles of a picture, at most, whose pixels a head learns."""

_HELD = 4
"""Times a bank's budget that entries of one picture are held, before they are condensed."""


def learned_tiles(
    embed: Callable[..., np.ndarray],
    light_of: Callable[[np.ndarray], Moments],
    planes: np.ndarray,
    mask: np.ndarray,
    tiling: Tiling,
    settings: BankSettings,
    label: Mapping[str, Any],
) -> BankArrays:
    """Return the entries of a labelled picture, no more than the bank was exported with.

    Args:
        embed: A tile ``[C, h, w]``, and mean and deviation of its light, to embeddings ``[P, D]``.
        light_of: Gives the light of a picture, as the model takes it.
        planes: The picture ``[C, H, W]`` in [0, 1].
        mask: Its class indices ``[H, W]`` uint8, 255 is ignored.
        tiling: How it is cut.
        settings: Of the bank.
        label: Device, image and class_names, as `labelled_image` takes them.

    Raises:
        ValueError: If every pixel is ignored.
    """
    grid, light, budget = tiling.grid((planes.shape[-2], planes.shape[-1])), light_of(planes), settings.budget
    bank: BankArrays | None = None
    for tile in chosen_tiles(grid, mask):
        embeddings = embed(grid.cut(planes, tile), *light)
        patches = patch_labels(grid.cut_mask(mask, tile), settings.patch_size)
        part = labelled_image(embeddings, patches, **label)
        part.entries["positions"][:] += tile.index * len(patches)
        bank = part if bank is None else replace(bank, entries=joined_entries(bank.entries, part.entries))
        if budget is not None and len(bank) > _HELD * budget:
            bank = condensed(bank, _HELD * budget // 2, settings.patch_size)
    if bank is None:
        msg = f"{label['image']}: every pixel of the mask is ignored ({IGNORE_INDEX}), so there is nothing to learn."
        raise ValueError(msg)
    return bank if budget is None else condensed(bank, budget, settings.patch_size)


def tile_pixels(
    tiling: Tiling,
    light_of: Callable[[np.ndarray], Moments],
    run: Callable[[Any], Any],
    planes: np.ndarray,
    mask: np.ndarray,
    head: HeadContent,
    classes: int,
    seed: int,
    fold: int,
) -> PixelSample:
    """Return the labelled pixels of a picture that a head is fitted to; arguments are those of `labelled_pixels`."""
    grid = tiling.grid((planes.shape[-2], planes.shape[-1]))
    seen = thinned(planes)

    def light(index: int, random: np.random.Generator) -> Sequence[np.ndarray]:
        return light_of(view_light(seen, index, random, head.varied))

    tiles = chosen_tiles(grid, mask, _TILES)
    whole: PixelSample | None = None
    for tile in tiles:
        parts = np.ascontiguousarray(grid.cut(planes, tile)), grid.cut_mask(mask, tile)
        number = max(1, head.per_image // len(tiles))
        part = labelled_pixels(run, *parts, head, classes, seed + tile.index, fold, light, number)
        whole = part if whole is None else whole.joined(part)
    assert whole is not None  # noqa: S101 - for the type checker; a picture without labels is an error before
    return whole
