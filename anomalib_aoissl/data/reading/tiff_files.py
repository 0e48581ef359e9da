# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""TIFF files: pages, samples, bits and colour spaces as their tags say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image as PILImage

from anomalib_aoissl.data.errors import DatasetError

from .raster import Raster, check_size

_GREY = {tifffile.PHOTOMETRIC.MINISWHITE, tifffile.PHOTOMETRIC.MINISBLACK}
_LOSSLESS = {
    "NONE", "CCITTRLE", "CCITTFAX3", "CCITTFAX4", "CCIRLEW", "LZW", "ADOBE_DEFLATE", "DEFLATE", "PACKBITS", "LZMA",
    "ZSTD", "ZSTD_DEPRECATED", "PNG", "JBIG", "JBIG2", "JBIG_BW",
}  # fmt: skip
_PREVIEW, _TRANSPARENCY = 1, 4  # bits of the tag NewSubfileType
_OLD_PREVIEW = 2  # value of the older tag SubfileType
_OLD_SUBFILE_TYPE, _ORIENTATION = 255, 274


def size_of_tiff(path: Path) -> tuple[int, int]:
    """Return (height, width) of the upright picture, px, from its tags."""
    with tifffile.TiffFile(path) as tiff:
        page = _pages(tiff, path)[0]
        size = int(page.imagelength), int(page.imagewidth)
        return size[::-1] if _orientation(page) > 4 else size


def orientation_of_tiff(path: Path) -> int:
    """Return the orientation of the first page, 1 where it has none."""
    with tifffile.TiffFile(path) as tiff:
        return _orientation(_pages(tiff, path)[0])


def read_tiff(path: Path) -> list[Raster]:
    """Return the pages of a TIFF that show the picture; previews and transparency masks are left out.

    Raises:
        DatasetError: If pages differ in size, or the file is of a kind that would be read wrong.
    """
    with tifffile.TiffFile(path) as tiff:
        pages = _pages(tiff, path)
        rasters = [_page(page, path) for page in pages]
    sizes = sorted({raster.samples.shape[:2] for raster in rasters})
    if len(sizes) > 1:
        msg = f"{path}: has pages of different sizes, {sizes} (height, width). Save the one that is meant by itself."
        raise DatasetError(msg)
    return rasters


def _pages(tiff: tifffile.TiffFile, path: Path) -> list[Any]:
    """Return the pages that are neither a preview nor a mask of another."""
    pages: list[Any] = [page for page in tiff.pages if not _is_aside(page)]
    if not pages:
        msg = f"{path}: holds previews only (NewSubfileType). Save the picture itself."
        raise DatasetError(msg)
    for page in pages:
        check_size(path, int(page.imagelength), int(page.imagewidth))
    stored = sum(int(np.prod(page.shape)) for page in tiff.pages)
    if len(tiff.series) == 1 and int(np.prod(tiff.series[0].shape)) > stored:
        msg = f"{path}: holds a stack {tiff.series[0].shape} without a page for each. Save a page for each picture."
        raise DatasetError(msg)
    return pages


def _is_aside(page: Any) -> bool:
    """Tell whether a page is a preview of another, or says where another is transparent."""
    old = page.tags.get(_OLD_SUBFILE_TYPE)
    return (
        bool(int(page.subfiletype) & (_PREVIEW | _TRANSPARENCY))
        or page.photometric == tifffile.PHOTOMETRIC.MASK
        or (old is not None and old.value == _OLD_PREVIEW)
    )


def _orientation(page: tifffile.TiffPage) -> int:
    """Return the orientation of a page, 1 where it has none."""
    tag = page.tags.get(_ORIENTATION)
    return int(tag.value) if tag is not None and tag.value in range(1, 9) else 1


def _page(page: tifffile.TiffPage, path: Path) -> Raster:
    """Return one page upright."""
    _check_whole(page, path)
    lossy = None if _name(page.compression) in _LOSSLESS else _name(page.compression)
    if page.photometric in {tifffile.PHOTOMETRIC.YCBCR, tifffile.PHOTOMETRIC.SEPARATED}:
        return _converted(page, path, lossy)
    samples, alpha, premultiplied = _samples(page, path)
    raster = Raster(
        samples,
        _bits(page, samples, path),
        colour=page.photometric == tifffile.PHOTOMETRIC.RGB,
        palette=_palette(page) if page.photometric == tifffile.PHOTOMETRIC.PALETTE else None,
        alpha=alpha,
        premultiplied=premultiplied,
        white_is_zero=page.photometric == tifffile.PHOTOMETRIC.MINISWHITE,
        lossy=lossy,
    )
    return raster.upright(_orientation(page))


def _check_whole(page: tifffile.TiffPage, path: Path) -> None:
    """Validate that every strip or tile lies in the file: tifffile gives zeros in place of one that is missing."""
    ends = [offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)]
    if not ends or min(page.databytecounts) <= 0 or max(ends) > path.stat().st_size:
        msg = f"{path}: cannot be read as an image (parts of its pixels are missing). It is truncated or damaged."
        raise DatasetError(msg)


def _converted(page: tifffile.TiffPage, path: Path, lossy: str | None) -> Raster:
    """Return a page of inks or of a video colour space as red, green, blue."""
    video = page.photometric == tifffile.PHOTOMETRIC.YCBCR
    array = _array(page, path)
    if page.bitspersample != 8 or array.dtype != np.uint8 or array.shape[-1] != (3 if video else 4):
        msg = (
            f"{path}: {page.bitspersample}-bit {_name(page.photometric)} with {page.samplesperpixel} samples is not "
            "read. Save it as RGB or grey."
        )
        raise DatasetError(msg)
    if not (video and lossy is not None and "JPEG" in lossy):  # a JPEG's decoder gives red, green, blue
        bands = [PILImage.fromarray(np.ascontiguousarray(array[..., band])) for band in range(array.shape[-1])]
        array = np.array(PILImage.merge("YCbCr" if video else "CMYK", bands).convert("RGB"))
    return Raster(array, 8, colour=True, lossy=lossy or _name(page.photometric)).upright(_orientation(page))


def _array(page: tifffile.TiffPage, path: Path) -> np.ndarray:
    """Return the stored values of a page as ``[H, W, S]``."""
    array: np.ndarray = np.asarray(page.asarray())
    array = array.astype(np.uint8) if array.dtype == bool else array
    if array.ndim == 2:
        array = array[..., np.newaxis]
    elif page.axes == "SYX":
        array = np.moveaxis(array, 0, -1)
    if array.shape != (page.imagelength, page.imagewidth, page.samplesperpixel):
        msg = f"{path}: a page of the shape {array.shape} ({page.axes}) is no picture. Save it as one or more pages."
        raise DatasetError(msg)
    return array


def _samples(page: tifffile.TiffPage, path: Path) -> tuple[np.ndarray, np.ndarray | None, bool]:
    """Return the samples ``[H, W, S]`` without alpha, alpha ``[H, W]`` or None, and whether it was multiplied in."""
    photometric = page.photometric
    if photometric not in {*_GREY, tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.PALETTE}:
        msg = f"{path}: the colour space {_name(photometric)} is not read. Save the picture as RGB or grey."
        raise DatasetError(msg)
    array = _array(page, path)
    own = 3 if photometric == tifffile.PHOTOMETRIC.RGB else 1
    if own == 3 and array.shape[-1] == 4 and not page.extrasamples:
        return _with_untold_fourth(array, path)
    return _without_alpha(array, own, page.extrasamples, path, palette=photometric == tifffile.PHOTOMETRIC.PALETTE)


def _with_untold_fourth(array: np.ndarray, path: Path) -> tuple[np.ndarray, None, bool]:
    """Return red, green and blue of four samples without a word on the fourth, as OpenCV writes alpha.

    Raises:
        DatasetError: If the fourth is not opaque all over: it may be alpha, or another lighting channel.
    """
    fourth = array[..., 3]
    if array.dtype.kind != "u" or (fourth != np.iinfo(array.dtype).max).any():
        msg = (
            f"{path}: has four samples a pixel, whose tags do not say what the fourth is (ExtraSamples). Save it "
            "without alpha, or with the tag where it is another channel."
        )
        raise DatasetError(msg)
    return array[..., :3], None, False


def _without_alpha(
    array: np.ndarray, own: int, extras: Sequence[int], path: Path, *, palette: bool
) -> tuple[np.ndarray, np.ndarray | None, bool]:
    """Return the samples without those that the file calls alpha; an extra sample of no such kind is a plane."""
    count = array.shape[-1]
    kinds = [0] * (count - len(extras)) + [int(kind) for kind in extras]
    kinds[:own] = [0] * own
    planes = [index for index in range(count) if kinds[index] == 0]
    alphas = [index for index in range(count) if kinds[index] != 0]
    if count < own or len(alphas) > 1 or (palette and len(planes) > 1):
        msg = f"{path}: {count} samples a pixel of the kinds {kinds} are not understood. Save it as RGB or grey."
        raise DatasetError(msg)
    alpha = array[..., alphas[0]] if alphas else None
    premultiplied = bool(alphas) and kinds[alphas[0]] == int(tifffile.EXTRASAMPLE.ASSOCALPHA)
    return array[..., planes], alpha, premultiplied


def _bits(page: tifffile.TiffPage, samples: np.ndarray, path: Path) -> int | None:
    """Return the bits of an unsigned sample, None for other types."""
    bits = page.bitspersample
    if not isinstance(bits, int):
        if len(set(bits)) > 1:
            msg = f"{path}: {bits} bits a sample are not read. Save it with the same number of bits for each."
            raise DatasetError(msg)
        bits = bits[0]
    return int(bits) if samples.dtype.kind == "u" and bits <= 16 else None


def _palette(page: tifffile.TiffPage) -> np.ndarray:
    """Return the colour map ``[N, 3]`` uint8; TIFF has 16 bits, but some programs write 8."""
    colours = np.asarray(page.colormap).T
    return (colours if colours.max() < 256 else colours >> 8).astype(np.uint8)


def _name(value: object) -> str:
    """Return the name of a tag's value, or the number that has none."""
    return str(getattr(value, "name", value))
