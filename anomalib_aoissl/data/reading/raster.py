# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What a picture file says of itself: its stored values, and all that decides what they mean."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from anomalib_aoissl.data.errors import DatasetError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
LARGEST_PICTURE = 1 << 30
"""Pixels of the largest picture that is read, as in OpenCV."""

_KINDS = {
    b"\x89PNG\r\n\x1a\n": "png",
    b"\xff\xd8\xff": "jpeg",
    b"BM": "bmp",
    b"II*\x00": "tiff",
    b"MM\x00*": "tiff",
    b"II+\x00": "tiff",
    b"MM\x00+": "tiff",
}
_OTHERS = {
    b"GIF8": "a GIF",
    b"RIFF": "a WebP",
    b"%PDF": "a PDF",
    b"8BPS": "a Photoshop file",
    b"\x00\x00\x00\x0cjP": "a JPEG 2000",
    b"version https://git-lfs": "a pointer of Git LFS (fetch its picture with git lfs pull), not",
}
_LONGEST_REASON = 200


@dataclass(frozen=True)
class Raster:
    """One page of a picture file as it is stored, turned upright.

    Attributes:
        samples: ``[H, W, S]``, the values of the file without its alpha.
        bits: Bits of an unsigned value, 1 to 16; None for other types.
        colour: Whether the first three samples are red, green and blue.
        palette: ``[N, 3]`` uint8, red, green and blue of each index; None where the samples are no indices.
        alpha: ``[H, W]``, how opaque each pixel is, 0 to the largest value; None for all.
        premultiplied: Whether the samples were multiplied by alpha.
        white_is_zero: Whether 0 stands for white.
        lossy: Name of the coding or colour space where it changes values, such as JPEG.
    """

    samples: np.ndarray
    bits: int | None
    colour: bool = False
    palette: np.ndarray | None = None
    alpha: np.ndarray | None = None
    premultiplied: bool = False
    white_is_zero: bool = False
    lossy: str | None = None

    @property
    def see_through(self) -> bool:
        """Whether any pixel is not opaque."""
        return self.alpha is not None and bool((self.alpha != self.alpha.dtype.type((1 << (self.bits or 8)) - 1)).any())

    def upright(self, orientation: int) -> Raster:
        """Return the page as a viewer shows it, by the orientation of EXIF and TIFF, 1 to 8."""
        alpha = None if self.alpha is None else turned(self.alpha, orientation)
        return replace(self, samples=turned(self.samples, orientation), alpha=alpha)


def turned(array: np.ndarray, orientation: int) -> np.ndarray:
    """Return rows and columns ``[H, W, ...]`` as the orientation tag says [0]; an unknown one changes nothing.

    [0]: TIFF 6.0, Adobe, 1992, page 36; EXIF takes its values over.
    """
    if orientation in {5, 6, 7, 8}:
        array = array.swapaxes(0, 1)
    if orientation in {3, 4, 7, 8}:
        array = array[::-1]
    if orientation in {2, 3, 6, 7}:
        array = array[:, ::-1]
    return array


def file_kind(path: Path) -> str:
    """Return "png", "jpeg", "bmp" or "tiff" by the file's first bytes: its name may say anything.

    Raises:
        DatasetError: If it is none of these.
    """
    with path.open("rb") as file:
        head = file.read(32)
    for start, kind in _KINDS.items():
        if head.startswith(start):
            return kind
    what = next((name for start, name in _OTHERS.items() if head.startswith(start)), None)
    given = "is empty" if not head else "begins like no picture" if what is None else f"is {what}"
    msg = f"{path}: {given}; it cannot be read as an image. It must be a PNG, JPEG, BMP or TIFF by its content."
    raise DatasetError(msg)


def check_size(path: Path, height: int, width: int) -> None:
    """Validate that a picture of this size, in px, can be held in memory.

    Raises:
        DatasetError: If it is empty or larger than `LARGEST_PICTURE`.
    """
    if height < 1 or width < 1 or height * width > LARGEST_PICTURE:
        msg = (
            f"{path}: has {height}x{width} px (height x width); 1 to {LARGEST_PICTURE} px are read. Cut it into parts."
        )
        raise DatasetError(msg)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Make every error of the block one that names the file: a damaged file makes decoders fail in any way."""
    try:
        yield
    except DatasetError:
        raise
    except Exception as error:
        raise DatasetError(_reason(path, error)) from error


def _reason(path: Path, error: Exception) -> str:
    """Return why a file could not be read, and what to do."""
    if not path.exists():
        return f"{path}: the file does not exist."
    if path.is_dir():
        return f"{path}: is a folder, not an image file."
    if isinstance(error, PermissionError):
        return f"{path}: may not be read by this user. Change the file's permissions."
    text = " ".join(f"{error}".split())[:_LONGEST_REASON] or type(error).__name__
    if "imagecodecs" in text or isinstance(error, ImportError):
        return f"{path}: cannot be read without the package imagecodecs ({text}): pip install imagecodecs."
    if "COMPRESSION." in text:  # tifffile's; later versions know more of them
        return f"{path}: its compression cannot be read here ({text}). Save it with LZW or Deflate, or without."
    return f"{path}: cannot be read as an image ({text}). Is it truncated, or damaged?"
