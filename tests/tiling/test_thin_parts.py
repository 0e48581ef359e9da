# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Parts that the model's size cannot show are found in the masks, and warned of with numbers and the remedy."""

import logging
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from anomalib_aoissl.data.describing.mask_format import MaskFormat
from anomalib_aoissl.models.pictures.thin_parts import thin_classes, warn_of_thin_parts

NAMES = ["background", "wire", "die"]


def mask_with(*, wire: int) -> np.ndarray:
    """Return a mask of 200x300 px with a wire of so many px across, one along its height, and a die of 80x80."""
    mask = np.zeros((200, 300), np.uint8)
    mask[60:140, 150:230] = 2
    mask[:, 40 : 40 + wire] = 1
    return mask


@pytest.mark.parametrize(
    ("wire", "size", "found"),
    [
        (3, (100, 150), True),  # 1.5 px
        (4, (100, 150), False),  # 2 px
        (7, (50, 75), True),
        (8, (50, 75), False),
        (1, (200, 300), False),  # nothing is shrunk
        (7, (200, 75), True),  # in one direction alone
    ],
)
def test_a_wire_is_thin_below_two_pixels(wire: int, size: tuple[int, int], found: bool) -> None:
    thin = thin_classes([mask_with(wire=wire)], size, NAMES)
    assert [one.name for one in thin] == (["wire"] if found else [])
    if found:
        assert thin[0].share == 1
        assert thin[0].native == pytest.approx(wire, abs=1)
        assert thin[0].width == pytest.approx(wire * min(size[0] / 200, size[1] / 300), abs=0.5)


def test_a_share_of_thin_parts_is_that_of_the_pixels() -> None:
    """Half of the class is a wire, half a block; what touches ignored pixels or the border is not taken for thin."""
    mask = np.zeros((200, 200), np.uint8)
    mask[:, 50:52], mask[100:120, 100:120] = 1, 1
    (thin,) = thin_classes([mask], (100, 100), NAMES)
    assert thin.share == pytest.approx(400 / 800)
    mask[:, 52:60] = 255
    assert not thin_classes([mask], (100, 100), NAMES)
    edge = np.zeros((200, 200), np.uint8)
    edge[:, :1] = 1
    assert not thin_classes([edge], (100, 100), NAMES)


def test_round_parts_lose_corners_alone() -> None:
    """A block of 4x4 px covers the middle of a disc of 6 px, and 4 in 10 of its pixels are outside."""
    mask = np.zeros((200, 200), np.uint8)
    rows, columns = np.ogrid[-2.5:3.5, -2.5:3.5]
    mask[50:56, 50:56] = rows**2 + columns**2 < 9
    assert not thin_classes([mask], (100, 100), NAMES)


def test_the_warning_names_class_numbers_and_remedy(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    paths = []
    for index in range(12):
        paths.append(str(tmp_path / f"{index}.png"))
        Image.fromarray(mask_with(wire=3)).save(paths[-1])
    dataset = SimpleNamespace(samples=pd.DataFrame({"mask_path": ["", *paths]}), mask_format=MaskFormat())
    with caplog.at_level(logging.WARNING):
        warn_of_thin_parts(dataset, (96, 144), NAMES)
    (record,) = caplog.records
    assert "At the model's 96x144 px" in record.getMessage()
    assert "wire: 100% of its pixels" in record.getMessage()
    assert "pictures of 200x300 px" in record.getMessage()
    assert "--model.tiling.size '[96,144]'" in record.getMessage()
    caplog.clear()
    warn_of_thin_parts(dataset, (200, 300), NAMES)
    warn_of_thin_parts(object(), (96, 144), NAMES)
    assert not caplog.records
