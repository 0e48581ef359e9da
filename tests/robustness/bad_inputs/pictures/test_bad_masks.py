# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Masks: their class indices are read right, or the error names the file and the remedy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rows import Row, table
from writing_pictures import INDICES, TURNED, Write, encoded, few_bits_png, pages, raw, saved, spoiled, tiff

from anomalib_aoissl.data.reading import read_mask

COLOURS = {(0, 0, 0): 0, (255, 0, 0): 1, (0, 255, 0): 2}
CODED = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0]], dtype=np.uint8)[INDICES]


def mask(name: str, write: Write, **options: Any) -> Callable[[Path], object]:
    """Return an act that writes a mask of three classes and reads it back."""

    def act(folder: Path) -> object:
        write(folder / name)
        return read_mask(folder / name, num_classes=3, **options).tolist()

    return act


def mask_with_other_palette(path: Path) -> None:
    Image.fromarray(CODED).quantize(8).save(path)


MASKS = table(
    Row(
        "own palette, read by colours", mask("a.png", mask_with_other_palette, colours=COLOURS), value=INDICES.tolist()
    ),
    Row(
        "grey, read by colours",
        mask("a.png", saved(INDICES * 255), colours={(0, 0, 0): 0, (255,) * 3: 1, (254,) * 3: 2}),
        value=(INDICES % 3).tolist(),
    ),
    Row(
        "indices, though colours are named",
        mask("a.png", saved(np.full_like(INDICES, 2)), colours=COLOURS),
        r"a\.png: the colour \(2, 2, 2\) .* take the table out",
    ),
    Row("grey of 2 bits", mask("a.png", raw(few_bits_png(INDICES, 2))), value=INDICES.tolist()),
    Row("grey of 4 bits", mask("a.png", raw(few_bits_png(INDICES, 4))), value=INDICES.tolist()),
    Row("EXIF orientation", mask("a.png", saved(INDICES, exif=TURNED)), value=np.rot90(INDICES, -1).tolist()),
    Row(
        "TIFF orientation",
        mask("a.tif", tiff(INDICES, extratags=[(274, 3, 1, 3, True)])),
        value=np.rot90(INDICES, 2).tolist(),
    ),
    Row("whole floats", mask("a.tif", tiff(INDICES.astype(np.float32))), value=INDICES.tolist()),
    Row(
        "fractions",
        mask("a.tif", tiff(INDICES + np.float32(0.5))),
        r"a\.tif: holds \d\.5 at row 0, column 0, no class index",
    ),
    Row("NaN", mask("a.tif", tiff(spoiled(INDICES * 0, np.nan))), r"a\.tif: holds nan at row 2, column 3"),
    Row("negative values", mask("a.tif", tiff(INDICES.astype(np.int16) - 1)), r"a\.tif: the class index -1"),
    Row(
        "-1 as the ignore index",
        mask("a.tif", tiff(INDICES.astype(np.int16) - 1), ignore_index=-1),
        value=np.array([255, 0, 1])[INDICES].tolist(),
    ),
    Row("a JPEG renamed .png", mask("a.png", raw(encoded(INDICES, "JPEG"))), r"a\.png: is coded as JPEG"),
    Row("JPEG in a TIFF", mask("a.tif", tiff(np.zeros((16, 16), np.uint8), compression="jpeg")), "is coded as JPEG"),
    Row("white is zero", mask("a.tif", tiff(INDICES, photometric="miniswhite")), r"a\.tif: says that 0 is white"),
    Row("several pages", mask("a.tif", pages(INDICES, INDICES)), r"a\.tif: has 2 pages"),
    Row("see-through pixels", mask("a.png", saved(np.dstack([CODED, INDICES])), colours=COLOURS), "not opaque"),
    Row(
        "opaque alpha",
        mask("a.png", saved(np.dstack([CODED, INDICES * 0 + 255])), colours=COLOURS),
        value=INDICES.tolist(),
    ),
    Row(
        "samples of no meaning",
        mask("a.tif", tiff(CODED[..., :2], photometric="minisblack", planarconfig="contig", extrasamples=[0])),
        r"a\.tif: the mask has 2 samples",
    ),
    Row("CMYK", mask("a.tif", saved(CODED, "CMYK")), "is coded as SEPARATED"),
)


@pytest.mark.parametrize("row", MASKS)
def test_masks(row: Row, tmp_path: Path) -> None:
    row.check(tmp_path)
