# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Whether a picture is as sharp, as lit and as little clipped as the labelled ones were; without torch.

Novelty does not tell a blurred or a black picture: nothing in it is new.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np

SHARPNESS_LEFT = 0.45
"""Sharpness below this share of the least labelled one is blur."""

SHARPNESS_DIFFERS = 1.25
"""Where labelled pictures differ in sharpness by a larger factor, the limit is lower by what exceeds it."""

CONTRAST_LEFT = 0.15
"""Contrast below this share of the least labelled one is a dark or an empty picture."""

CLIPPED_MORE = 0.2
"""Share of all pixels that may be black, or white, beyond that of the labelled images."""

_END = 1 / 255  # of the values' range
_FINE, _COARSE = (1.0, 2.5), (1.0, 2.5)  # sigma in px; the coarse band is that of the picture a quarter as large
_SHRUNK = 4
_LEAST_CONTRAST = 0.01  # of a plane that shows something
_ROWS = 1 << 21  # pixels at once


@dataclass(frozen=True)
class PictureQuality:
    """Measures of a picture, one value for each plane.

    Attributes:
        contrast: Standard deviation of intensities in [0, 1].
        sharpness: Deviation of fine detail over that of coarse detail, differences of Gaussians: of 1 and 2.5 px, and
            of about 4 and 10 px. A gain changes neither.
        black: Share of the pixels at the lower end of the values.
        white: Share at the upper end.
    """

    contrast: tuple[float, ...]
    sharpness: tuple[float, ...]
    black: tuple[float, ...]
    white: tuple[float, ...]


def picture_quality(planes: np.ndarray, size: tuple[int, int] | None = None) -> PictureQuality:
    """Return the quality of planes ``[C, H, W]`` in [0, 1].

    Args:
        planes: The picture.
        size: (height, width) px that the model sees it at; None where it sees tiles of the picture's own size.
    """
    values = [_measured(_resized(plane, size)) for plane in planes]
    return PictureQuality(*(tuple(each) for each in zip(*values, strict=True)))


def _resized(plane: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    """Return a plane ``[H, W]`` as float32 at the size."""
    plane = np.ascontiguousarray(plane, dtype=np.float32)
    if size is None or plane.shape == tuple(size):
        return plane
    return cv2.resize(plane, (size[1], size[0]), interpolation=cv2.INTER_AREA)


def _measured(plane: np.ndarray) -> tuple[float, float, float, float]:
    """Return contrast, sharpness, and the black and the white share of a plane ``[H, W]``, some rows at a time."""
    sums = np.zeros(6)  # of values, squares, both bands' squares, black and white pixels
    rows = max(_ROWS // plane.shape[1], 16 * _SHRUNK)
    for first in range(0, len(plane), rows):
        part = plane[first : first + rows]
        small = (max(part.shape[1] // _SHRUNK, 1), max(part.shape[0] // _SHRUNK, 1))
        coarse = _band(cv2.resize(part, small, interpolation=cv2.INTER_AREA), *_COARSE)
        squares = [np.square(values, dtype=np.float64) for values in (part, _band(part, *_FINE), coarse)]
        fine, coarse_squares = squares[1].sum(), squares[2].mean() * part.size
        ends = np.count_nonzero(part <= _END), np.count_nonzero(part >= 1 - _END)
        sums += [part.sum(dtype=np.float64), squares[0].sum(), fine, coarse_squares, *ends]
    mean, square, fine, coarse, black, white = sums / plane.size
    contrast, sharpness = np.sqrt(max(square - mean**2, 0)), np.sqrt(fine / max(coarse, 1e-18))
    return float(contrast), float(sharpness), float(black), float(white)


def _band(plane: np.ndarray, inner: float, outer: float) -> np.ndarray:
    """Return the difference of a plane blurred by Gaussians of two deviations, px."""
    blurred = [cv2.GaussianBlur(plane, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE) for sigma in (inner, outer)]
    return blurred[0] - blurred[1]


@dataclass(frozen=True)
class QualityRange:
    """What labelled pictures are like: the least and the most of each plane.

    Attributes:
        size: (height, width) px that they were measured at, and others are; None for each picture's own.
    """

    contrast: tuple[float, ...]
    sharpness: tuple[float, ...]
    sharpest: tuple[float, ...]
    black: tuple[float, ...]
    white: tuple[float, ...]
    size: tuple[int, int] | None = None

    @classmethod
    def of(cls, pictures: Iterable[np.ndarray], size: tuple[int, int] | None = None) -> QualityRange:
        """Return the range of one picture or more, planes ``[C, H, W]`` in [0, 1], all of one number of planes."""
        return cls._around([picture_quality(planes, size) for planes in pictures], size)

    @classmethod
    def _around(cls, pictures: Sequence[PictureQuality], size: tuple[int, int] | None) -> QualityRange:
        """Return the range of what was measured."""

        def ends(name: str, end: Any) -> tuple[float, ...]:
            return tuple(end(values) for values in zip(*(getattr(one, name) for one in pictures), strict=True))

        least = ends("contrast", min), ends("sharpness", min)
        return cls(*least, ends("sharpness", max), ends("black", max), ends("white", max), size)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> QualityRange:
        """Return the range from the plain data of `to_dict`."""
        ends = {name: tuple(float(value) for value in values) for name, values in content.items() if name != "size"}
        size = content["size"]
        return cls(**ends, size=None if size is None else (int(size[0]), int(size[1])))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for a checkpoint or an exported model."""
        return {name: None if values is None else list(values) for name, values in asdict(self).items()}

    def with_picture(self, planes: np.ndarray) -> QualityRange:
        """Return the range that holds a further labelled picture ``[C, H, W]`` too."""
        least = PictureQuality(self.contrast, self.sharpness, self.black, self.white)
        sharpest = PictureQuality(self.contrast, self.sharpest, self.black, self.white)
        return self._around([least, sharpest, picture_quality(planes, self.size)], self.size)

    def fault(self, planes: np.ndarray) -> str:
        """Return in what a picture ``[C, H, W]`` differs from the labelled ones, so that its mask may be wrong.

        "" where there is no fault.
        """
        picture = picture_quality(planes, self.size)
        kinds: dict[str, list[tuple[int, str]]] = {}
        for plane in range(len(self.contrast)):
            kind, figures = self._fault_of_plane(picture, plane)
            if kind:
                kinds.setdefault(kind, []).append((plane, figures))
        return "; ".join(self._said(kind, found) for kind, found in kinds.items())

    def _said(self, kind: str, found: Sequence[tuple[int, str]]) -> str:
        """Return a kind of fault and the figures of the first plane that has it; which planes, if not all have it."""
        planes = ", ".join(str(plane) for plane, _ in found)
        where = "" if len(found) == len(self.contrast) else f" in plane {planes}"
        return f"{kind}{where} ({found[0][1]})"

    def _fault_of_plane(self, picture: PictureQuality, plane: int) -> tuple[str, str]:
        """Return what is wrong with one plane, and the figures that say so; "" twice for nothing."""
        for kind, end in (("underexposed", "black"), ("overexposed", "white")):
            share, most = getattr(picture, end)[plane], getattr(self, end)[plane]
            if share > most + CLIPPED_MORE:
                return kind, f"{share:.0%} of the pixels are {end}, at most {most:.0%} of labelled pictures"
        contrast, least = picture.contrast[plane], self.contrast[plane]
        if contrast < CONTRAST_LEFT * least:
            return "dark or empty", f"contrast {contrast:.3f}, at least {least:.3f} in labelled pictures"
        sharpness, least = picture.sharpness[plane], self.sharpness[plane]
        differing = max(1, self.sharpest[plane] / max(least, 1e-9) / SHARPNESS_DIFFERS)
        if self.contrast[plane] > _LEAST_CONTRAST and sharpness < SHARPNESS_LEFT * least / differing:
            return "blurred", f"sharpness {sharpness:.3f}, at least {least:.3f} in labelled pictures"
        return "", ""
