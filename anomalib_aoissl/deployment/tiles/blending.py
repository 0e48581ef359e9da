# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Maps of a large picture out of those of its tiles, strip by strip, in memory that does not grow with its height."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import groupby, islice, starmap
from typing import Generic, TypeVar

import numpy as np

from anomalib_aoissl.deployment.abstaining import NOVELTY_POWER, uncertainty_of
from anomalib_aoissl.deployment.many import in_order

from .tiling import Tile, TileGrid

_BATCH_PIXELS = 1 << 17
"""Pixels of the tiles that are asked at once; a tile that has more is asked alone, since a batch of it costs memory."""

_BINS = 1 << 16
_PERCENTILE = 0.99

_T = TypeVar("_T")

RunTile = Callable[[np.ndarray], np.ndarray]
"""Tiles ``[B, C, h, w]`` to maps ``[B, K, h, w]`` float32."""

Answers = Iterator[tuple[Tile, np.ndarray]]
"""The tiles of a picture, in order, each with its maps ``[K, h, w]``."""


@dataclass(frozen=True, eq=False)
class CutPicture:
    """A picture that is cut into tiles.

    Attributes:
        planes: ``[C, H, W]``.
        grid: Its tiles.
        run: What gives the maps of tiles; several threads call it where there are several workers.
    """

    planes: np.ndarray
    grid: TileGrid
    run: RunTile

    def batches(self) -> Iterator[list[Tile]]:
        """Return the tiles that are asked at once, in order."""
        tiles, number = iter(self.grid), max(1, _BATCH_PIXELS // (self.grid.down.size * self.grid.across.size))
        return iter(lambda: list(islice(tiles, number)), [])

    def ask(self, tiles: list[Tile]) -> list[tuple[Tile, np.ndarray]]:
        """Return tiles, each with its maps ``[K, h, w]``."""
        stacked = np.stack([self.grid.cut(self.planes, tile) for tile in tiles])
        return list(zip(tiles, self.run(stacked), strict=True))


def blended_strips(
    planes: np.ndarray, grid: TileGrid, run: RunTile, *, workers: int = 1
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the first row and the maps ``[K, rows, W]`` of each strip of a picture, from top to bottom.

    The maps are overwritten when the next strip is asked for.

    Args:
        planes: The picture ``[C, H, W]``.
        grid: Its tiles.
        run: What gives the maps of tiles; several threads call it where there are several workers.
        workers: Batches of tiles that are asked at once.
    """
    picture = CutPicture(planes, grid, run)
    with closing(answered([(None, picture)], workers)) as pictures:
        for _, answers in pictures:
            yield from strips_of(picture, answers)


def strips_of(
    picture: CutPicture, answers: Answers, done: Callable[[int], object] = lambda _: None
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the strips of a picture as `blended_strips` does.

    Args:
        picture: The picture.
        answers: Of its tiles.
        done: Is called with the number of tiles that a finished row of tiles has.
    """
    (height, width), grid = picture.planes.shape[-2:], picture.grid
    size, starts = (grid.down.size, grid.across.size), grid.down.starts
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


@dataclass(frozen=True, eq=False)
class _Source(Generic[_T]):
    """One of many pictures: what the caller knows of it, and its tiles; None for a picture that has none."""

    known: _T
    picture: CutPicture | None


@dataclass
class _Batch(Generic[_T]):
    """Tiles of one of many pictures, and, once they are there, their maps or the error in their place."""

    source: _Source[_T]
    tiles: list[Tile]
    answers: list[tuple[Tile, np.ndarray]] | Exception = field(default_factory=list)


def answered(
    pictures: Iterable[tuple[_T, CutPicture | None]], workers: int
) -> Generator[tuple[_T, Answers], None, None]:
    """Yield what is known of each picture, and the answers of its tiles, while those of the next are computed.

    No more than twice as many batches of tiles as there are workers wait, however many pictures there are.

    Args:
        pictures: What is known of each, and the picture; None for one without tiles. Another thread than the caller's
            reads them where there are several workers.
        workers: Batches of tiles that are asked at once.

    Raises:
        Exception: What a picture's ``run`` raises, where its answers are read; the pictures after it go on.
    """

    def ask(_: int, batch: _Batch[_T]) -> _Batch[_T]:
        try:
            if batch.source.picture is not None:
                batch.answers = batch.source.picture.ask(batch.tiles)
        except Exception as error:  # noqa: BLE001 - is raised where the answers are read
            batch.answers = error
        return batch

    batches = _batches(pictures)
    with closing(in_order(ask, batches, workers) if workers > 1 else (ask(0, each) for each in batches)) as stream:
        for source, group in groupby(stream, key=lambda batch: batch.source):
            yield source.known, _raising(group)


def _batches(pictures: Iterable[tuple[_T, CutPicture | None]]) -> Iterator[_Batch[_T]]:
    """Yield the tiles of pictures that are asked at once; of a picture without tiles none, once."""
    for source in starmap(_Source, pictures):
        for tiles in [[]] if source.picture is None else source.picture.batches():
            yield _Batch(source, tiles)


def _raising(batches: Iterable[_Batch[_T]]) -> Answers:
    """Yield the answers of batches, and raise the error that is in their place."""
    for batch in batches:
        if isinstance(batch.answers, Exception):
            raise batch.answers
        yield from batch.answers


@dataclass
class StripReader:
    """What blended maps say, strip by strip, and of the whole picture at the end.

    Attributes:
        novelty: Whether the last of the maps is the novelty; else all are class probabilities.
        power: Of novelty in the uncertainty, see `uncertainty_of`.
    """

    novelty: bool
    power: int = NOVELTY_POWER
    _largest: float = 0.0
    _bins: np.ndarray = field(default_factory=lambda: np.zeros(_BINS, np.int64))

    def read(self, maps: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return class indices uint8, the model's map and the uncertainty float32, ``[rows, W]`` each.

        The map is the novelty of a retrieval model, whose uncertainty is that of `uncertainty_of`; of another it is
        the uncertainty, 1 - the largest class probability.

        Raises:
            FloatingPointError: If a value is not finite.
        """
        probabilities = maps[:-1] if self.novelty else maps
        classes, share = probabilities.argmax(axis=0).astype(np.uint8), probabilities.max(axis=0)
        share = np.minimum(share, 1)
        if self.novelty:
            values = maps[-1].copy()
            uncertainty = uncertainty_of(share, values, self.power)
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
