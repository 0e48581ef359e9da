# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Maps of a large picture out of those of its tiles, strip by strip, in memory that does not grow with its height."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

import numpy as np

from .tiling import Tile, TileGrid

_BATCH_PIXELS = 1 << 17
"""Pixels of the tiles that are asked at once; a tile that has more is asked alone, since a batch of it costs memory."""

_BINS = 1 << 16
_PERCENTILE = 0.99

_T = TypeVar("_T")
_R = TypeVar("_R")

Run = Callable[[np.ndarray], np.ndarray]
"""Tiles ``[B, C, h, w]`` to maps ``[B, K, h, w]`` float32."""


def blended_strips(
    planes: np.ndarray, grid: TileGrid, run: Run, *, workers: int = 1, done: Callable[[int], object] = lambda _: None
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the first row and the maps ``[K, rows, W]`` of each strip of a picture, from top to bottom.

    The maps are overwritten when the next strip is asked for.

    Args:
        planes: The picture ``[C, H, W]``.
        grid: Its tiles.
        run: What gives the maps of tiles; several threads call it where there are several workers.
        workers: Batches of tiles that are asked at once.
        done: Is called with the number of tiles that a finished row of tiles has.
    """
    height, width = planes.shape[-2:]
    size, starts = (grid.down.size, grid.across.size), grid.down.starts
    answers = _answers(planes, grid, run, workers)
    strip: np.ndarray | None = None
    for row, top in enumerate(starts):
        for tile, maps in islice(answers, len(grid.across.starts)):
            if strip is None:
                strip = np.zeros((len(maps), size[0], max(width, size[1])), np.float32)
            strip[:, :, tile.left : tile.left + size[1]] += maps * grid.weight(tile)
        assert strip is not None  # noqa: S101 - for the type checker; each row has a tile
        done(len(grid.across.starts))
        finished = (starts[row + 1] if row + 1 < len(starts) else height) - top
        yield top, strip[:, :finished, :width]
        strip[:, : size[0] - finished] = strip[:, finished:].copy()
        strip[:, size[0] - finished :] = 0


def _answers(planes: np.ndarray, grid: TileGrid, run: Run, workers: int) -> Iterator[tuple[Tile, np.ndarray]]:
    """Yield each tile with its maps ``[K, h, w]``, in order."""
    tiles = iter(grid)
    number = max(1, _BATCH_PIXELS // (grid.down.size * grid.across.size))
    batches = iter(lambda: list(islice(tiles, number)), [])

    def ask(batch: list[Tile]) -> list[tuple[Tile, np.ndarray]]:
        stacked = np.stack([grid.cut(planes, tile) for tile in batch])
        return list(zip(batch, run(stacked), strict=True))

    for answers in in_order(ask, batches, workers):
        yield from answers


def in_order(function: Callable[[_T], _R], values: Iterable[_T], workers: int) -> Iterator[_R]:
    """Yield what a function gives for each value, in order, with so many calls at once and no more results waiting."""
    if workers < 2:
        yield from map(function, values)
        return
    waiting: deque[Future[_R]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for value in values:
                waiting.append(pool.submit(function, value))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:  # where one failed, or nobody asks for the rest
                future.cancel()


@dataclass
class StripReader:
    """What blended maps say, strip by strip, and of the whole picture at the end.

    Attributes:
        novelty: Whether the last of the maps is the novelty; else all are class probabilities.
    """

    novelty: bool
    _largest: float = 0.0
    _bins: np.ndarray = field(default_factory=lambda: np.zeros(_BINS, np.int64))

    def read(self, maps: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return class indices uint8, the model's map and the uncertainty float32, ``[rows, W]`` each.

        The map is the novelty of a retrieval model, whose uncertainty is 1 - probability * similarity; of another it is
        the uncertainty, 1 - the largest class probability.

        Raises:
            FloatingPointError: If a value is not finite.
        """
        probabilities = maps[:-1] if self.novelty else maps
        classes, share = probabilities.argmax(axis=0).astype(np.uint8), probabilities.max(axis=0)
        share = np.minimum(share, 1)
        if self.novelty:
            values = maps[-1].copy()
            uncertainty = 1 - share * np.maximum(1 - values, 0)
        else:
            values = uncertainty = 1 - share
        if not (np.isfinite(values).all() and np.isfinite(share).all()):
            msg = "The maps of a tile are not finite."
            raise FloatingPointError(msg)
        self._largest = max(self._largest, float(values.max()))
        if not self.novelty:
            self._bins += np.histogram(values, _BINS, (0, 1))[0]
        return classes, values, uncertainty

    @property
    def score(self) -> float:
        """The picture's score: its largest novelty, or the 99th percentile of its uncertainty."""
        if self.novelty:
            return self._largest
        reached = np.cumsum(self._bins)
        place = int(np.searchsorted(reached, _PERCENTILE * reached[-1]))
        return min((place + 0.5) / _BINS, self._largest)
