# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Whether a picture is as sharp, as lit, as little clipped and as wide as the labelled ones were; without torch.

Novelty does not tell a blurred or a black picture: nothing in it is new. Inverted pictures and planes in another order
are told by `picture_tones`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from functools import cached_property
from typing import Any

import cv2
import numpy as np

from .picture_tones import Tones, picture_tones, tone_fault

SHARPNESS_LEFT = 0.45
"""Sharpness below this share of the least labelled one is blur."""

SHARPNESS_DIFFERS = 1.25
"""Where labelled pictures differ in sharpness by a larger factor, the limit is lower by what exceeds it."""

CONTRAST_LEFT = 0.15
"""Contrast below this share of the least labelled one is a dark or an empty picture."""

CLIPPED_MORE = 0.2
"""Share of all pixels that may be black, or white, beyond that of the labelled images."""

CLIPPED_GROUND = 0.2
"""Where so many pixels of a labelled picture are black, or white, it is the ground, which may have any share."""

STRETCHED = 1.3
"""Factor between the width, in heights, of a picture and that of the labelled ones, from which parts are deformed."""

_PER_PLANE = "contrast", "across", "down", "black", "white"

_END = 1 / 255  # of the values' range
_INNER, _OUTER = 1.0, 2.5  # px; the coarse band is the same of the picture a quarter as large
_SHRUNK = 4
_LEAST_CONTRAST = 0.01  # of a plane that shows something
_ROWS = 1 << 21  # pixels at once


@dataclass(frozen=True)
class PictureQuality:
    """Measures of a picture, the first five one value for each plane.

    Attributes:
        contrast: Standard deviation of intensities in [0, 1].
        across: Sharpness across the picture: deviation of fine detail over that of coarse detail, differences of
            Gaussians of 1 and 2.5 px along the rows, and of about 4 and 10 px. A gain changes neither, motion does.
        down: The same along the columns.
        black: Share of the pixels at the lower end of the values.
        white: Share at the upper end.
        tones: Its `picture_tones`; none in models that did not take them.
        shape: Its own height and width, px; the same.
    """

    contrast: tuple[float, ...]
    across: tuple[float, ...]
    down: tuple[float, ...]
    black: tuple[float, ...]
    white: tuple[float, ...]
    tones: Tones = ()
    shape: tuple[int, ...] = ()


def picture_quality(planes: np.ndarray, size: tuple[int, int] | None = None) -> PictureQuality:
    """Return the quality of planes ``[C, H, W]`` in [0, 1].

    Args:
        planes: The picture.
        size: (height, width) px that the model sees it at; None where it sees tiles of the picture's own size.
    """
    return replace(_of_planes(planes, size), tones=picture_tones(planes), shape=planes.shape[1:])


def _of_planes(planes: np.ndarray, size: tuple[int, int] | None) -> PictureQuality:
    """Return what `picture_quality` measures of each plane, without tones and shape."""
    values = zip(*(_measured(_resized(plane, size)) for plane in planes), strict=True)
    contrast, across, down, black, white = values
    return PictureQuality(contrast, across, down, black, white)


def _resized(plane: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    """Return a plane ``[H, W]`` as float32 at the size."""
    plane = np.ascontiguousarray(plane, dtype=np.float32)
    if size is None or plane.shape == tuple(size):
        return plane
    return cv2.resize(plane, (size[1], size[0]), interpolation=cv2.INTER_AREA)


def _measured(plane: np.ndarray) -> tuple[float, ...]:
    """Return the first measures of a plane ``[H, W]`` in `PictureQuality`'s order, taken some rows at a time."""
    sums = np.zeros(8)  # of values, squares, fine and coarse bands' squares, black and white pixels
    rows = max(_ROWS // plane.shape[1], 16 * _SHRUNK)
    for first in range(0, len(plane), rows):
        part = plane[first : first + rows]
        small = cv2.resize(
            part, (max(part.shape[1] // _SHRUNK, 1), max(part.shape[0] // _SHRUNK, 1)), interpolation=cv2.INTER_AREA
        )
        bands = [value * part.size for values in (part, small) for value in _bands(values)]
        ends = np.count_nonzero(part <= _END), np.count_nonzero(part >= 1 - _END)
        sums += [part.sum(dtype=np.float64), np.square(part, dtype=np.float64).sum(), *bands, *ends]
    mean, square, across, down, coarse_across, coarse_down, black, white = sums / plane.size
    contrast = np.sqrt(max(square - mean**2, 0))
    sharpness = np.sqrt([across / max(coarse_across, 1e-18), down / max(coarse_down, 1e-18)])
    return tuple(map(float, (contrast, *sharpness, black, white)))


def _bands(plane: np.ndarray) -> list[float]:
    """Return the mean squares of a plane's differences of Gaussians across and down.

    Both are blurred the other way too, which keeps noise out.
    """
    inner = _blurred(plane, _INNER, _INNER)
    outer = _blurred(plane, _OUTER, _INNER), _blurred(plane, _INNER, _OUTER)
    return [float(np.square(inner - each, dtype=np.float64).mean()) for each in outer]


def _blurred(plane: np.ndarray, across: float, down: float) -> np.ndarray:
    """Return a plane blurred by a Gaussian of these deviations, px."""
    return cv2.GaussianBlur(plane, (0, 0), sigmaX=across, sigmaY=down, borderType=cv2.BORDER_REPLICATE)


@dataclass(frozen=True)
class LabelledQuality:
    """What labelled pictures are like, and whether another one is like them.

    Attributes:
        pictures: The quality of each by its name, all of one number of planes.
        size: (height, width) px that they were measured at, and others are; None for each picture's own.
    """

    pictures: Mapping[str, PictureQuality]
    size: tuple[int, int] | None = None

    @classmethod
    def of(cls, pictures: Iterable[tuple[str, np.ndarray]], size: tuple[int, int] | None = None) -> LabelledQuality:
        """Return the quality of pictures by their names, planes ``[C, H, W]`` in [0, 1] each."""
        return cls({name: picture_quality(planes, size) for name, planes in pictures}, size)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> LabelledQuality:
        """Return the quality from the plain data of `to_dict`."""
        size = content["size"]
        pictures = {name: PictureQuality(*map(tuple, measures)) for name, measures in content["pictures"].items()}
        return cls(pictures, None if size is None else (int(size[0]), int(size[1])))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for a checkpoint or an exported model."""
        pictures = {name: [list(values) for values in astuple(one)] for name, one in self.pictures.items()}
        return {"size": None if self.size is None else list(self.size), "pictures": pictures}

    def with_picture(self, name: str, planes: np.ndarray) -> LabelledQuality:
        """Return it with a further labelled picture ``[C, H, W]``."""
        return replace(self, pictures={**self.pictures, name: picture_quality(planes, self.size)})

    def equals_of(self, name: str) -> list[str]:
        """Return the names of other pictures with the measures of one, as the same picture has on any machine."""
        own = np.array([getattr(self.pictures[name], measure) for measure in _PER_PLANE])
        return [
            other
            for other, one in self.pictures.items()
            if other != name and np.allclose([getattr(one, measure) for measure in _PER_PLANE], own, 1e-3, 1e-6)
        ]

    def among(self, names: Iterable[str]) -> LabelledQuality | None:
        """Return it with the pictures of these names alone; None where none is left."""
        known = set(names)
        pictures = {name: one for name, one in self.pictures.items() if name in known}
        return replace(self, pictures=pictures) if pictures else None

    def fault(self, planes: np.ndarray) -> str:
        """Return in what a picture ``[C, H, W]`` differs from the labelled ones, so that its mask may be wrong.

        "" where there is no fault.
        """
        picture = _of_planes(planes, self.size)
        kinds: dict[str, list[tuple[int, str]]] = {}
        for plane in range(len(planes)):
            kind, figures = self._fault_of_plane(picture, plane)
            if kind:
                kinds.setdefault(kind, []).append((plane, figures))
        said = [_said(kind, found, len(planes)) for kind, found in kinds.items()]
        if not said:  # what is clipped or dark has other tones too
            kind, figures = tone_fault(planes, self._tones)
            said += [f"{kind} ({figures})"] if kind else []
        return "; ".join([*said, *self._stretched(planes)])

    def _stretched(self, planes: np.ndarray) -> list[str]:
        """Return how much wider or narrower parts become than labelled ones, where pictures are resized as a whole."""
        height, width = planes.shape[1:]
        shapes = {one.shape for one in self.pictures.values() if one.shape}
        if self.size is None or not shapes:
            return []
        factors = {shape: shape[1] / shape[0] * height / width for shape in shapes}
        labelled = min(factors, key=lambda shape: max(factors[shape], 1 / factors[shape]))
        factor = factors[labelled]
        if 1 / STRETCHED < factor < STRETCHED:
            return []
        both = f"{height}x{width} px, height x width, and {'x'.join(map(str, labelled))} in labelled pictures"
        return [f"stretched ({both}: parts are {factor:.2g} times as wide)"]

    @cached_property
    def _tones(self) -> np.ndarray:
        """The tones ``[N, T]`` of the pictures that have some."""
        return np.array([one.tones for one in self.pictures.values() if one.tones])

    @cached_property
    def _ends(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """The least and the most of each measure of a plane, ``[C]`` each."""
        values = {name: np.array([getattr(one, name) for one in self.pictures.values()]) for name in _PER_PLANE}
        return {name: (each.min(axis=0), each.max(axis=0)) for name, each in values.items()}

    def _fault_of_plane(self, picture: PictureQuality, plane: int) -> tuple[str, str]:
        """Return what is wrong with one plane, and the figures that say so; "" twice for nothing."""
        for kind, end in (("underexposed", "black"), ("overexposed", "white")):
            share, labelled = getattr(picture, end)[plane], self._ends[end][1][plane]
            if labelled < CLIPPED_GROUND and share > labelled + CLIPPED_MORE:
                return kind, f"{share:.0%} of the pixels are {end}, at most {labelled:.0%} of labelled pictures"
        contrast, (lowest, highest) = picture.contrast[plane], (values[plane] for values in self._ends["contrast"])
        if highest < _LEAST_CONTRAST:  # a lamp that is off, which shows noise alone
            lit = contrast > 2 * _LEAST_CONTRAST
            return ("lit", f"contrast {contrast:.3f}, at most {highest:.3f} in labelled pictures") if lit else ("", "")
        if contrast < CONTRAST_LEFT * lowest:
            return "dark or empty", f"contrast {contrast:.3f}, at least {lowest:.3f} in labelled pictures"
        if lowest < _LEAST_CONTRAST:
            return "", ""
        ways = {
            way: (getattr(picture, way)[plane], *(values[plane] for values in self._ends[way]))
            for way in ("across", "down")
        }
        below = [way for way, (found, *labelled) in ways.items() if found < _least_sharpness(*labelled)]
        if not below:
            return "", ""
        kind = "blurred" if len(below) == len(ways) else f"blurred {below[0]}"
        sharpness, lowest, _ = ways[below[0]]
        return kind, f"sharpness {sharpness:.3f}, at least {lowest:.3f} in labelled pictures"


def _least_sharpness(least: float, most: float) -> float:
    """Return the sharpness below which a picture is blurred, given the least and the most of labelled ones."""
    return SHARPNESS_LEFT * least / max(most / max(least, 1e-9) / SHARPNESS_DIFFERS, 1)


def _said(kind: str, found: Sequence[tuple[int, str]], planes: int) -> str:
    """Return a kind of fault and the figures of the first plane that has it; which planes, if not all have it."""
    where = "" if len(found) == planes else f" in plane {', '.join(str(plane) for plane, _ in found)}"
    return f"{kind}{where} ({found[0][1]})"
