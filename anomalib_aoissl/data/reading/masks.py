# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Masks to class indices: grey or palette files of indices, and colour-coded ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from anomalib_aoissl.data.errors import DatasetError
from anomalib_aoissl.data.indices import IGNORE_INDEX

from .pictures import palette_colours, read_rasters
from .raster import Raster, naming

MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff")

Colour = tuple[int, int, int]


def read_mask(
    path: str | Path,
    *,
    num_classes: int | None = None,
    ignore_index: int = IGNORE_INDEX,
    colours: Mapping[Colour, int] | None = None,
) -> np.ndarray:
    """Return the class-index mask as uint8 ``[H, W]``, turned upright by its orientation tag; ignored pixels are 255.

    Args:
        path: Index file (grey or palette, where the index is the class), or a colour-coded one with ``colours``.
        num_classes: C; every index must lie in 0..C-1 or be the ignore index.
        ignore_index: Value that means ignore in the file.
        colours: Class index of each (red, green, blue). Where it is given, colours count in palette and grey files too.

    Raises:
        DatasetError: If the file is unreadable or lossy, would be read wrong, a colour is unknown, or an index has
            no class.
    """
    path = Path(path)
    if path.suffix.lower() not in MASK_SUFFIXES:
        msg = f"{path}: a mask must be a lossless file ({', '.join(MASK_SUFFIXES)}); write its class indices as PNG."
        raise DatasetError(msg)
    with naming(path):
        raster = _page(path)
        if colours is not None:
            return _of_colours(_rgb(raster, path), path, colours)
        return _of_indices(_indices(raster, path), path, num_classes, ignore_index)


def _page(path: Path) -> Raster:
    """Return the page of a mask file, after what would make its values doubtful is ruled out."""
    first, *others = read_rasters(path)
    faults = {
        f"has {1 + len(others)} pages, and a mask is one": bool(others),
        f"is coded as {first.lossy}, which changes indices, whatever its name says": first.lossy is not None,
        "says that 0 is white (MINISWHITE), so that its indices are doubtful": first.white_is_zero,
        "has pixels that are not opaque": first.see_through,
    }
    fault = next((what for what, is_so in faults.items() if is_so), None)
    if fault is not None:
        msg = f"{path}: {fault}. Write class indices (0 background, 1..C-1) as a grey or palette PNG."
        raise DatasetError(msg)
    return first


def _rgb(raster: Raster, path: Path) -> np.ndarray:
    """Return the colours ``[H, W, 3]`` uint8 of a mask that is to be read by its colours."""
    if raster.palette is not None:
        return palette_colours(raster, str(path))
    if raster.bits is None or raster.bits > 8 or raster.samples.shape[-1] not in {1, 3}:
        msg = (
            f"{path}: holds {raster.samples.dtype} with {raster.samples.shape[-1]} samples a pixel, but is to be read "
            "by the colours of dataset.json. Write it with 8 bits of red, green and blue, or take the colours out."
        )
        raise DatasetError(msg)
    scaled = raster.samples * np.uint8(255 // ((1 << raster.bits) - 1)) if raster.bits in {1, 2, 4} else raster.samples
    return np.repeat(scaled, 3, axis=-1) if scaled.shape[-1] == 1 else scaled


def _indices(raster: Raster, path: Path) -> np.ndarray:
    """Return the values ``[H, W]`` of a mask file, of any integer type."""
    samples = raster.samples
    if samples.shape[-1] > 1 and not (samples == samples[..., :1]).all():
        what = "is colour-coded" if raster.colour else f"has {samples.shape[-1]} samples a pixel"
        msg = (
            f"{path}: the mask {what}. Write class indices (0 background, 1..C-1) as a grey or palette PNG, or "
            'name the colours in dataset.json: "colours": {"class name": [red, green, blue], ...}.'
        )
        raise DatasetError(msg)
    values = samples[..., 0]
    if values.dtype.kind in "ui":
        return values
    wrong = ~np.isfinite(values) | (values != np.round(values.real)) if values.dtype.kind == "f" else values == values
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        msg = (
            f"{path}: holds {values[row, column]} at row {row}, column {column}, no class index. Write whole numbers "
            "(0 background, 1..C-1), such as an 8-bit PNG."
        )
        raise DatasetError(msg)
    return values.astype(np.int64)


def _of_indices(values: np.ndarray, path: Path, num_classes: int | None, ignore_index: int) -> np.ndarray:
    """Return the values of a file as class indices, uint8 ``[H, W]``."""
    allowed = IGNORE_INDEX if num_classes is None else num_classes
    if num_classes is not None and 0 <= ignore_index < num_classes:
        msg = (
            f"{path}: the value {ignore_index} means ignore in masks of this dataset, but {allowed} classes are named, "
            f"and it is the index of one. Give the mask as an array, or ignore 255 in dataset.json and in masks."
        )
        raise DatasetError(msg)
    ignored = values == ignore_index
    wrong = ((values < 0) | (values >= allowed)) & (values != IGNORE_INDEX) & ~ignored
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        msg = (
            f"{path}: the class index {values[row, column]} at row {row}, column {column} has no name; "
            f"{allowed} classes are named (0..{allowed - 1}, 255 is ignored). Name it in dataset.json, classes.txt or "
            "the argument classes, or mend the mask."
        )
        raise DatasetError(msg)
    mask = values.astype(np.uint8)
    mask[ignored] = IGNORE_INDEX
    return np.ascontiguousarray(mask)


def _of_colours(rgb: np.ndarray, path: Path, colours: Mapping[Colour, int]) -> np.ndarray:
    """Return the class index of each pixel of a colour-coded mask, uint8 ``[H, W]``."""
    codes = _code(rgb.astype(np.uint32))  # [H, W]
    mask, known = np.zeros(codes.shape, np.uint8), np.zeros(codes.shape, bool)
    for colour, index in colours.items():
        here = codes == _code(np.array(colour, dtype=np.uint32))
        mask[here] = index
        known |= here
    if not known.all():
        row, column = np.argwhere(~known)[0]
        msg = (
            f"{path}: the colour {tuple(int(v) for v in rgb[row, column])} at row {row}, column {column} is not in the "
            f"colour table of dataset.json, which has {sorted(colours)}. Add it, or take the table out where masks "
            "hold class indices."
        )
        raise DatasetError(msg)
    return mask


def _code(rgb: np.ndarray) -> np.ndarray:
    """Return one number for each (red, green, blue)."""
    return (rgb[..., 0] << 16) | (rgb[..., 1] << 8) | rgb[..., 2]
