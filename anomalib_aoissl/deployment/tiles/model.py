# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Pictures of any size by the model of one tile, and what is written while they are read; needs no torch."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from anomalib_aoissl.deployment.abstaining import NOVELTY_POWER, AbstentionFormat
from anomalib_aoissl.deployment.segmentation import NOT_FINITE

from .blending import Answers, CutPicture, StripReader, answered, strips_of
from .graph import answer_names, light_reader, maps_of, size_of, tile_graph
from .strip_files import MAPS, StripFiles
from .tiling import Tiling

if TYPE_CHECKING:
    import openvino

_LONG = 64
"""Tiles from which on a bar shows how far a picture is."""


@dataclass(frozen=True)
class TiledAnswer:
    """What tiles say of a picture.

    Attributes:
        classes: ``[H, W]`` uint8 class indices.
        values: ``[H, W]`` float32, novelty, or the uncertainty of a model without a bank.
        uncertainty: ``[H, W]`` float32; None where the model cannot tell.
        score: The picture's score.
    """

    classes: np.ndarray
    values: np.ndarray
    uncertainty: np.ndarray | None
    score: float


class TiledModel:
    """A model that answers tiles, compiled.

    Args:
        model: `openvino.Model` as it was exported.
        tiling: How pictures are cut; the tile must be of the model's size.
        patches: How votes of patches make a picture; None for a model without a bank.
        compiled: Compiles a model for several calls at once, and returns what runs it, and how many these are.

    Raises:
        ValueError: If the model was exported before tiles were there, or its size is not that of the tile.
    """

    def __init__(
        self,
        model: openvino.Model,
        tiling: Tiling,
        patches: AbstentionFormat | None,
        compiled: Callable[[Any], tuple[Callable[[Any], Any], int]],
    ) -> None:
        self.tiling, self._patches = tiling, patches
        self._names = answer_names(model)
        if tiling.size != size_of(model):
            height, width = size_of(model)
            msg = (
                f"tiling.size={tiling.size} must be the model's size, ({height}, {width}) px: what it was trained to "
                "see at once. Set that size, or train and export with another."
            )
            raise ValueError(msg)
        self.light_of = light_reader(model)
        self._run, self.workers = compiled(tile_graph(model, self._names))

    def maps(self, tiles: np.ndarray, light: Sequence[np.ndarray]) -> np.ndarray:
        """Return class probabilities, and the novelty after them where there is one, ``[B, K, h, w]`` float32.

        Args:
            tiles: ``[B, C, h, w]`` in [0, 1].
            light: Mean and deviation of the light of their picture, see `light_of`.
        """
        lights = [np.repeat(values, len(tiles), axis=0) for values in light]
        outputs = self._run([np.ascontiguousarray(tiles), *lights]).to_tuple()
        return maps_of([np.asarray(tensor) for tensor in outputs], self._names, self._patches)

    def reading(self, tile: np.ndarray, light: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return class indices, the model's map and the uncertainty ``[h, w]`` of one tile ``[C, h, w]``.

        Raises:
            ValueError: If a value is not finite.
        """
        return _finite(self._reader(), self.maps(tile[np.newaxis], light)[0])

    def _reader(self) -> StripReader:
        """Return what reads the maps of one picture."""
        power = NOVELTY_POWER if self._patches is None else self._patches.power
        return StripReader(novelty=len(self._names) > 1, power=power)

    def cut(self, planes: np.ndarray) -> CutPicture:
        """Return a picture ``[C, H, W]`` in [0, 1] with its tiles, which are asked under the picture's light."""
        grid = self.tiling.grid((planes.shape[-2], planes.shape[-1]))
        return CutPicture(planes, grid, partial(self.maps, light=self.light_of(planes)))

    def answer(self, planes: np.ndarray, output: str | Path | None = None) -> TiledAnswer:
        """Return what the tiles of a picture ``[C, H, W]`` say.

        Args:
            planes: The picture in [0, 1].
            output: File (``.tif`` or ``.npy``) that the class map is written to as it is read, strip by strip, and
                beside which the other maps are; the answer's arrays are then memory maps of these files.

        Raises:
            ValueError: If a value is not finite.
            OSError: If a file cannot be written; nothing is left of it then.
        """
        picture = self.cut(planes)
        with closing(answered([(None, picture)], self.workers)) as pictures:
            return self.blended(picture, next(pictures)[1], output)

    def blended(self, picture: CutPicture, answers: Answers, output: str | Path | None = None) -> TiledAnswer:
        """Return what `answer` returns, given the answers of the picture's tiles."""
        size = picture.planes.shape[-2], picture.planes.shape[-1]
        reader = self._reader()
        kinds = {"": np.uint8, "novelty": np.float32}
        if self._patches is not None:
            kinds["uncertainty"] = np.float32
        with StripFiles(output, size, kinds) as files, _Bar(len(picture.grid)) as bar:
            for _, maps in strips_of(picture, answers, bar.add):
                files.add(dict(zip(MAPS, _finite(reader, maps), strict=True)))
        arrays = files.arrays()
        return TiledAnswer(arrays[""], arrays["novelty"], arrays.get("uncertainty"), reader.score)


def _finite(reader: StripReader, maps: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what a reader says of maps.

    Raises:
        ValueError: If a value is not finite.
    """
    try:
        return reader.read(maps)
    except FloatingPointError as error:
        raise ValueError(NOT_FINITE) from error


class _Bar:
    """How far a long work is, on a terminal; the line has no tqdm.

    Args:
        total: Tiles in all.
    """

    def __init__(self, total: int) -> None:
        self.total, self.count, self.begun = total, 0, time.monotonic()
        self.shown = total >= _LONG and sys.stderr is not None and sys.stderr.isatty()

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self.shown:
            sys.stderr.write("\r\x1b[K")

    def add(self, count: int) -> None:
        """Count tiles that are done."""
        self.count += count
        if self.shown:
            left = (time.monotonic() - self.begun) / self.count * (self.total - self.count)
            filled = 30 * self.count // self.total
            bar = f"{'#' * filled}{'.' * (30 - filled)}"
            sys.stderr.write(f"\rTiles [{bar}] {self.count} of {self.total}, {left:.0f} s left ")
            sys.stderr.flush()
