# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Pictures as tiles where torch trains and predicts; the tiles and their blending are those of the line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from anomalib_aoissl.deployment.abstaining import NOVELTY_POWER
from anomalib_aoissl.deployment.tiles.blending import StripReader, blended_strips
from anomalib_aoissl.deployment.tiles.light import thinned
from anomalib_aoissl.deployment.tiles.tiling import Tile, Tiling, chosen_tiles
from anomalib_aoissl.pixel_head.learning.labelled import LabelledImage, TileSource
from anomalib_aoissl.plugin.arguments import SIZE, ArgumentError

if TYPE_CHECKING:
    from .protocols import Calibration, SegmentationModule

DEFAULT_SIZE = (512, 512)
"""(height, width) px of a model's input where none is said."""


def plain_sizes(
    image_size: int | Sequence[int], tiling: Tiling | Mapping[str, Any] | None
) -> tuple[tuple[int, int], dict[str, Any] | None]:
    """Return (height, width) px of a model's input, and its tiling, as plain data that a checkpoint may hold.

    The input of a model with tiles is one tile.

    Raises:
        ArgumentError: If one of both is not possible, or they contradict each other.
    """
    SIZE.check("image_size", image_size)
    sides = tuple(image_size) if isinstance(image_size, Sequence) else (image_size, image_size)
    size, tiles = (int(sides[0]), int(sides[1])), Tiling.of(tiling)
    if tiles is None:
        return size, None
    if size not in {DEFAULT_SIZE, tiles.size}:
        msg = (
            f"image_size={size} and tiling.size={tiles.size} differ, but the model sees a tile as it is. Leave out "
            "image_size, or give both the same."
        )
        raise ArgumentError(msg)
    return tiles.size, tiles.plain()


class LabelledTile(NamedTuple):
    """A tile that shows labels.

    Attributes:
        tile: Its place.
        image: ``[1, C, h, w]``.
        mask: Class indices ``[1, h, w]``, 255 is ignored.
    """

    tile: Tile
    image: torch.Tensor
    mask: torch.Tensor


def labelled_tiles(
    image: torch.Tensor, mask: torch.Tensor, tiling: Tiling, most: int | None = None
) -> Iterator[LabelledTile]:
    """Yield the tiles of a picture ``[C, H, W]`` in which its mask ``[H, W]`` has labels.

    Args:
        image: The picture.
        mask: Its class indices, 255 is ignored.
        tiling: How it is cut.
        most: Tiles at most; of more, those that show most of each class, and others evenly taken. None for all.
    """
    grid, labels = tiling.grid((image.shape[-2], image.shape[-1])), mask.cpu().numpy()
    planes = image.detach().cpu().numpy()
    for tile in chosen_tiles(grid, labels, most):
        parts = grid.cut(planes, tile), grid.cut_mask(labels, tile)
        yield LabelledTile(tile, *(torch.from_numpy(part.copy())[None].to(image.device) for part in parts))


def head_tiles(
    image: torch.Tensor, mask: torch.Tensor, tiling: Tiling, ids: tuple[int, int], most: int
) -> list[LabelledImage]:
    """Return tiles of a picture ``[C, H, W]`` in [0, 1] that a pixel head is fitted to; all of them are one image.

    Args:
        image: The picture.
        mask: Its class indices ``[H, W]``, 255 is ignored.
        tiling: How it is cut.
        ids: Indices of its device and its name in the bank.
        most: Tiles at most.
    """
    seen = thinned(image)[None].clone()
    size = image.shape[-2], image.shape[-1]
    return [
        LabelledImage(part, labels[0].to(torch.uint8), *ids, picture=TileSource(seen, size, (tile.top, tile.left)))
        for tile, part, labels in labelled_tiles(image, mask, tiling, most)
    ]


@torch.no_grad()
def tiled_predictions(module: SegmentationModule, images: torch.Tensor) -> dict[str, torch.Tensor | None]:
    """Return the fields of a batch that a model with tiles gives for normalised images ``[B, C, H, W]``, at their size.

    Args:
        module: A model whose ``model.maps`` gives class probabilities, and for one with a bank the novelty after them.
        images: The images.
    """
    device, tiling = images.device, module.tiling
    assert tiling is not None  # noqa: S101 - for the type checker; asked of models with tiles
    grid = tiling.grid((images.shape[-2], images.shape[-1]))

    def run(tiles: np.ndarray) -> np.ndarray:
        maps: np.ndarray = module.model.maps(torch.from_numpy(tiles).to(device)).float().cpu().numpy()
        return maps

    calibration: Calibration | None = getattr(module.model, "abstention", None)  # of a model with a bank
    power = NOVELTY_POWER if calibration is None else int(calibration.power)
    found: list[tuple[torch.Tensor, ...]] = []
    for image in images:
        reader = StripReader(novelty=calibration is not None, power=power)
        planes = image.as_subclass(torch.Tensor).cpu().numpy()
        strips = [reader.read(maps) for _, maps in blended_strips(planes, grid, run)]
        maps = (torch.from_numpy(np.concatenate(parts)).to(device) for parts in zip(*strips, strict=True))
        found.append((*maps, torch.tensor(reader.score, device=device)))
    masks, values, uncertainty, scores = (torch.stack(parts) for parts in zip(*found, strict=True))
    fields: dict[str, torch.Tensor | None] = {
        "pred_mask": masks[:, None],
        "anomaly_map": values[:, None],
        "pred_score": scores,
    }
    if calibration is None:
        return fields
    threshold = calibration.threshold
    abstained = None if threshold is None else uncertainty > threshold
    return {**fields, "uncertainty": uncertainty, "abstained": abstained}
