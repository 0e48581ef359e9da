# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Tiles of a picture at its own resolution: where they lie, and how much each counts at a pixel; needs no torch.

Anomalib's `Tiler` is not used, for these reasons:

- It adds zeros at the borders. The pixel head would see edges there.
- It raises where a tile is larger than the picture.
- It gives all tiles of a pixel the same weight. So there is a step where a tile ends.
- It holds the whole result in torch tensors. There is no torch on the line.
- Its `TilerConfigurationCallback` sets the tiles after the model was made. Here the encoder is made for their size.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral, Real
from typing import Any

import numpy as np

from anomalib_aoissl.data.indices import IGNORE_INDEX
from anomalib_aoissl.pixel_head.learning.sample import evenly_taken
from anomalib_aoissl.plugin.arguments import SIZE, ArgumentError

_TILES = 1 << 20
"""Tiles of a picture at most: more are the sign of a wrong size."""


@dataclass(frozen=True)
class Tiling:
    """Tiles that pictures are cut into at their own resolution.

    Args:
        size: (height, width) of a tile, px; the encoder's patch size must divide both.
        overlap: What neighbours share at least: px, or a share of the tile's height and width in [0, 1).

    Raises:
        ArgumentError: If the size is not positive, or the overlap is not below the tile's sides.
    """

    size: tuple[int, int]
    overlap: int | float = 0.125

    def __post_init__(self) -> None:
        SIZE.check("tiling.size", self.size)
        size = (self.size, self.size) if isinstance(self.size, Integral) else self.size
        object.__setattr__(self, "size", (int(size[0]), int(size[1])))
        _check_overlap(self.overlap, self.size)

    @classmethod
    def of(cls, value: Tiling | Mapping[str, Any] | None) -> Tiling | None:
        """Return the tiling of a value as users and checkpoints give it; None for none.

        Raises:
            ArgumentError: If it is something else.
        """
        if value is None or isinstance(value, Tiling):
            return value
        if not isinstance(value, Mapping) or not {"size"} <= set(value) <= {"size", "overlap"}:
            msg = f"tiling={value!r} must be null, or have size (height, width) in px and may have overlap."
            raise ArgumentError(msg)
        return cls(**value)

    def plain(self) -> dict[str, Any]:
        """Return plain data for a checkpoint or an exported model, which `of` takes."""
        return {"size": list(self.size), "overlap": self.overlap}

    @property
    def shared(self) -> tuple[int, int]:
        """Px that neighbours share at least, (down, across)."""
        if isinstance(self.overlap, Integral):
            return int(self.overlap), int(self.overlap)
        return math.floor(self.overlap * self.size[0]), math.floor(self.overlap * self.size[1])

    def grid(self, size: tuple[int, int]) -> TileGrid:
        """Return the tiles of a picture of (height, width) px."""
        down, across = (Axis(*sides) for sides in zip(size, self.size, self.shared, strict=True))
        if len(down.starts) * len(across.starts) > _TILES:
            count = len(down.starts) * len(across.starts)
            msg = f"tiling.size={self.size} cuts {size[0]}x{size[1]} px into {count} tiles. Set a larger one."
            raise ArgumentError(msg)
        return TileGrid(down, across)


@dataclass(frozen=True)
class Axis:
    """Tiles along one side of a picture, as evenly spread as whole pixels allow.

    Attributes:
        length: Px of the picture's side.
        size: Px of a tile.
        overlap: Px that neighbours share at least.
    """

    length: int
    size: int
    overlap: int

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """First px of each tile; the last one ends where the picture ends, a tile that is larger begins at 0."""
        room = self.length - self.size
        if room <= 0:
            return (0,)
        steps = -(-room // (self.size - self.overlap))
        return tuple(index * room // steps for index in range(steps + 1))

    @cached_property
    def weights(self) -> np.ndarray:
        """How much each tile counts at each of its px, ``[tiles, size]`` float32; the sum over tiles is 1 at each px.

        Along what two tiles share, one weight falls as a squared cosine and the other rises. So the border of a tile,
        where it sees least of its surroundings, counts least, and nothing has a step.
        """
        weights = np.ones((len(self.starts), self.size))
        for index in range(1, len(self.starts)):
            shared = self.starts[index - 1] + self.size - self.starts[index]
            rising = np.sin((np.arange(shared) + 0.5) / max(shared, 1) * math.pi / 2) ** 2
            weights[index, :shared] *= rising
            weights[index - 1, self.size - shared :] *= rising[::-1]
        total = np.zeros(self.starts[-1] + self.size)
        for start, weight in zip(self.starts, weights, strict=True):
            total[start : start + self.size] += weight
        for start, weight in zip(self.starts, weights, strict=True):
            np.divide(weight, total[start : start + self.size], out=weight)
        return weights.astype(np.float32)

    @cached_property
    def inner(self) -> tuple[tuple[int, int], ...]:
        """First px of each tile, and that behind its last, that lie further from its border than from its neighbours'.

        Each px of the side is in one tile; of two that are as good, in the first.
        """
        middles = [(one + two + self.size - 1) // 2 + 1 for one, two in itertools.pairwise(self.starts)]
        return tuple(itertools.pairwise((0, *middles, self.length)))


@dataclass(frozen=True)
class Tile:
    """A tile of a picture.

    Attributes:
        index: Its number in row-major order.
        row: Its row of tiles.
        column: Its column of tiles.
        top: First row, px.
        left: First column, px.
    """

    index: int
    row: int
    column: int
    top: int
    left: int


@dataclass(frozen=True)
class TileGrid:
    """All tiles of a picture, in row-major order.

    Attributes:
        down: Rows of tiles.
        across: Columns of tiles.
    """

    down: Axis
    across: Axis

    def __len__(self) -> int:
        return len(self.down.starts) * len(self.across.starts)

    def __iter__(self) -> Iterator[Tile]:
        return map(self.tile, range(len(self)))

    def weight(self, tile: Tile) -> np.ndarray:
        """Return how much a tile counts at each of its px, ``[height, width]`` float32."""
        return self.down.weights[tile.row][:, np.newaxis] * self.across.weights[tile.column]

    def tile(self, index: int) -> Tile:
        """Return the tile of a number in row-major order."""
        row, column = divmod(index, len(self.across.starts))
        return Tile(index, row, column, self.down.starts[row], self.across.starts[column])

    def inner(self, tile: Tile) -> tuple[slice, slice]:
        """Return the rows and columns of the picture that lie further from the border of a tile than of any other."""
        return slice(*self.down.inner[tile.row]), slice(*self.across.inner[tile.column])

    def cut(self, planes: np.ndarray, tile: Tile) -> np.ndarray:
        """Return a tile of planes ``[C, H, W]``; what lies beyond a picture that is smaller shows it mirrored."""
        part, missing = self._inside(planes, tile)
        return np.pad(part, ((0, 0), *missing), mode="symmetric") if any(map(any, missing)) else part

    def cut_mask(self, mask: np.ndarray, tile: Tile) -> np.ndarray:
        """Return a tile of a mask ``[H, W]``; what lies beyond a picture that is smaller is ignored (255)."""
        part, missing = self._inside(mask, tile)
        return np.pad(part, missing, constant_values=IGNORE_INDEX) if any(map(any, missing)) else part

    def _inside(self, values: np.ndarray, tile: Tile) -> tuple[np.ndarray, list[tuple[int, int]]]:
        """Return what lies inside of the picture, and the px that are missing behind it down and across."""
        height, width = self.down.size, self.across.size
        part = values[..., tile.top : tile.top + height, tile.left : tile.left + width]
        return part, [(0, height - part.shape[-2]), (0, width - part.shape[-1])]


def chosen_tiles(grid: TileGrid, mask: np.ndarray, most: int | None = None) -> list[Tile]:
    """Return the tiles in which a mask ``[H, W]`` has labels.

    Args:
        grid: All tiles.
        mask: Class indices, 255 is ignored.
        most: Tiles at most; of more, those that show most of each class, and others evenly taken. None for all.
    """
    parts = ((tile, np.bincount(grid.cut_mask(mask, tile).ravel(), minlength=IGNORE_INDEX + 1)) for tile in grid)
    counts = {tile: count[:IGNORE_INDEX] for tile, count in parts if count[:IGNORE_INDEX].any()}
    tiles = list(counts)
    if most is None or len(tiles) <= most:
        return tiles
    table = np.stack([*counts.values()])
    chosen = list(dict.fromkeys(table[:, table.any(axis=0)].argmax(axis=0).tolist()))[:most]
    others = [index for index in range(len(tiles)) if index not in chosen]
    chosen += [others[index] for index in evenly_taken(len(others), most - len(chosen))]
    return [tiles[index] for index in sorted(chosen)]


def _check_overlap(overlap: Any, size: tuple[int, int]) -> None:
    """Validate an overlap.

    Raises:
        ArgumentError: If it is neither px nor a share, or not below the tile's sides.
    """
    is_number = isinstance(overlap, Real) and not isinstance(overlap, bool)
    if is_number and 0 <= overlap < (min(size) if isinstance(overlap, Integral) else 1):
        return
    msg = (
        f"tiling.overlap={overlap!r} must be whole px from 0 to {min(size) - 1}, below the tile of {size[0]}x{size[1]} "
        "px, or a share in [0, 1), such as 0.125."
    )
    raise ArgumentError(msg)
