# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Arrays of a camera: they are taken as what they are, or the error says what is allowed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rows import Row, table
from writing_pictures import COLOUR, DEEP, GREY, rounded, spoiled

from anomalib_aoissl.data.describing.file_format import FileFormat

BGR = COLOUR[..., ::-1]


def array(image: Any, **options: Any) -> Callable[[Path], object]:
    """Return an act that gives an array to the reader of the inferencer."""
    file_format = FileFormat(**options.pop("file_format", {}))
    return lambda _: rounded(file_format.read_array(image, **options))


ARRAYS = table(
    Row("red first", array(COLOUR), value=COLOUR.tolist()),
    Row("blue first, and said", array(BGR, color_order="bgr"), value=COLOUR.tolist()),
    Row(
        "blue first with alpha",
        array(np.dstack([BGR, GREY]), color_order="bgr"),
        value=np.dstack([COLOUR, GREY]).tolist(),
    ),
    Row(
        "alpha, for files of three planes",
        array(np.dstack([COLOUR, GREY]), file_format={"planes": (3,)}),
        value=COLOUR.tolist(),
    ),
    Row(
        "blue first with alpha, for files of three planes",
        array(np.dstack([BGR, GREY]), color_order="bgr", file_format={"planes": (3,)}),
        value=COLOUR.tolist(),
    ),
    Row(
        "four planes, for files of four",
        array(np.dstack([COLOUR, GREY]), file_format={"planes": (4,)}),
        value=np.dstack([COLOUR, GREY]).tolist(),
    ),
    Row(
        "four planes, for three lighting channels",
        array(np.dstack([COLOUR, GREY]), file_format={"lighting_channels": ("_a", "_b", "_c"), "planes": (1, 1, 1)}),
        "has 4 channels, but the model was trained on 3 pictures of an item, 3 planes in all \\(_a, _b, _c\\)",
    ),
    Row(
        "two planes, for colour files",
        array(COLOUR[..., :2], file_format={"planes": (3,)}),
        "has 2 planes .*have 3 \\(colour\\)",
    ),
    Row("colours, for grey files", array(COLOUR, file_format={"planes": (1,)}), "has 3 planes .colour., .*have 1"),
    Row(
        "grey as three planes, for grey files",
        array(np.dstack([GREY] * 3), file_format={"planes": (1,)}),
        value=np.dstack([GREY] * 3).tolist(),
    ),
    Row("an order that is none", array(COLOUR, color_order="BGR"), "color_order='BGR' must be 'rgb' or 'bgr'"),
    Row(
        "12 bits as the model's files",
        array(np.dstack([DEEP] * 3), file_format={"bit_depth": 12}),
        value=np.round(np.dstack([DEEP] * 3) / 4095 * 255).astype(int).tolist(),
    ),
    Row("more than the model's bits", array(DEEP * 15, file_format={"bit_depth": 12}), "more than bit_depth=12"),
    Row("NaN", array(spoiled(GREY, np.nan)), r"The array: holds NaN or infinity, first at row 2, column 3"),
    Row("infinity", array(spoiled(GREY, -np.inf)), "holds NaN or infinity"),
    Row("floats to 255", array(GREY.astype(np.float64)), r"float in \[0, 1\]; got float64", TypeError),
    Row("whole numbers of 32 bits", array(GREY.astype(np.int32)), "got int32", TypeError),
    Row("a list", array(GREY.tolist()), "got list", TypeError),
    Row("no pixel", array(np.zeros((0, 4), np.uint8)), "must have the shape"),
    Row("four axes", array(COLOUR[None]), "must have the shape"),
    Row(
        "colours for two grey lighting channels",
        array(COLOUR, file_format={"lighting_channels": ("_a", "_b"), "planes": (1, 1)}),
        "trained on 2 pictures of an item, 2 planes in all",
    ),
)


@pytest.mark.parametrize("row", ARRAYS)
def test_arrays(row: Row, tmp_path: Path) -> None:
    row.check(tmp_path)
