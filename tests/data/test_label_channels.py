# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Labels of an item's lighting channels: one item, one mask, whichever of its files was labelled."""

import json
from pathlib import Path

import numpy as np
import pytest
from exports import BALL, HEIGHT, WIDTH, WIRE, picture
from PIL import Image

from anomalib_aoissl.data.describing.file_format import FileFormat
from anomalib_aoissl.data.errors import DatasetError
from anomalib_aoissl.data.label_formats import masks, read_labels
from anomalib_aoissl.data.labels.converting import Choices, Report, convert
from anomalib_aoissl.data.labels.source import Source
from anomalib_aoissl.data.reading import read_mask

CHANNELS = ("_ch0", "_ch1")


def channels(root: Path, *labelled: tuple[str, str, list[int]], height: int = HEIGHT) -> Path:
    """Write the two files of the item u1, and LabelMe's file of some of them with one polygon each."""
    for channel in CHANNELS:
        picture(root / f"u1{channel}.png")
    for channel, label, flat in labelled:
        shape = {"label": label, "points": np.reshape(flat, (-1, 2)).tolist(), "shape_type": "polygon"}
        content = {"shapes": [shape], "imagePath": f"u1{channel}.png", "imageHeight": height, "imageWidth": WIDTH}
        (root / f"u1{channel}.json").write_text(json.dumps(content))
        height = HEIGHT
    return root


def converted(root: Path, classes: tuple[str, ...] | None = None) -> Report:
    source = Source(root, file_format=FileFormat(CHANNELS), classes=classes)
    return convert(read_labels(source), source, root.parent / "out", masks.FORMAT, Choices(classes=classes))


def written(out: Path) -> list[str]:
    return sorted(path.relative_to(out).as_posix() for path in out.rglob("*.png"))


def test_labels_of_two_lighting_channels_are_one_mask(tmp_path: Path) -> None:
    root = channels(tmp_path / "export", ("_ch0", "wire", WIRE), ("_ch1", "ball", BALL))
    report = converted(root, ("wire", "ball"))
    expected = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    expected[5:8, 10:50] = 1
    expected[4:10, 40:46] = 2  # of the later file, on top
    np.testing.assert_array_equal(read_mask(tmp_path / "out" / "masks" / "u1.png"), expected)
    assert (report.labelled, report.unlabelled) == (1, 0)
    assert any("18 px have two classes" in note for note in report.notes)


@pytest.mark.parametrize("channel", CHANNELS)
def test_one_labelled_lighting_channel_labels_the_item(channel: str, tmp_path: Path) -> None:
    report = converted(channels(tmp_path / "export", (channel, "wire", WIRE)))
    assert (report.labelled, report.unlabelled) == (1, 0)
    assert report.pixels[1] == 3 * 40
    assert written(tmp_path / "out") == ["images/u1_ch0.png", "images/u1_ch1.png", "masks/u1.png"]


def test_an_item_with_two_masks_or_two_sizes_is_an_error(tmp_path: Path) -> None:
    root = channels(tmp_path / "sizes", ("_ch0", "wire", WIRE), ("_ch1", "ball", BALL), height=HEIGHT + 1)
    with pytest.raises(DatasetError, match=r"u1_ch1\.json: .* and .*u1_ch0\.json labels .* at another size"):
        converted(root)
    root = channels(tmp_path / "masked" / "images").parent
    (root / "masks").mkdir()
    for channel in CHANNELS:
        Image.fromarray(np.ones((HEIGHT, WIDTH), np.uint8)).save(root / "masks" / f"u1{channel}.png")
    with pytest.raises(DatasetError, match=r"u1_ch1\.png: .* and .*u1_ch0\.png labels .* two cannot be joined"):
        converted(root, ("background", "wire"))
    assert not (tmp_path / "out").exists()
