# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Labels of pictures with an orientation tag: drawn before the turn or after it, as their size tells."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exports import EXPORTS, HEIGHT, WIDTH, drawing, export, pad, picture, runs
from PIL import Image, ImageOps

from anomalib_aoissl.data.label_formats import masks, read_labels
from anomalib_aoissl.data.labels.converting import Choices, Report, convert
from anomalib_aoissl.data.labels.source import Source
from anomalib_aoissl.data.reading import read_mask

SIDEWAYS = (5, 6, 7, 8)


def tag_picture(root: Path, tag: int, size: tuple[int, int] = (WIDTH, HEIGHT)) -> None:
    """Give the picture of an export an orientation tag, and a stored size (width, height)."""
    folders = {"masks", "SegmentationClass", "gtFine"}
    (path,) = (path for path in root.rglob("u1*.png") if not folders & {*path.parts})
    exif = Image.Exif()
    exif[0x0112] = tag
    with Image.open(path) as stored:
        stored.resize(size).save(path, exif=exif)


def upright(mask: np.ndarray, tag: int, folder: Path) -> np.ndarray:
    """Return a mask turned by Pillow."""
    exif = Image.Exif()
    exif[0x0112] = tag
    Image.fromarray(mask).save(folder / "stored.png", exif=exif)
    with Image.open(folder / "stored.png") as stored:
        return np.array(ImageOps.exif_transpose(stored))


def converted(root: Path) -> tuple[np.ndarray, Report]:
    """Return the one mask of an export, and the report."""
    source = Source(root)
    report = convert(
        read_labels(source), source, root.parent / "out", masks.FORMAT, Choices(classes=("pad", "wire", "ball"))
    )
    (path,) = (root.parent / "out" / "masks").rglob("*.png")
    return read_mask(path), report


@pytest.mark.parametrize("tag", SIDEWAYS)
@pytest.mark.parametrize("name", [name for name in EXPORTS if name != "YOLO"])
def test_labels_of_the_stored_size_are_turned_with_the_picture(name: str, tag: int, tmp_path: Path) -> None:
    root = export(name, tmp_path / "export")
    tag_picture(root, tag)
    mask, report = converted(root)
    np.testing.assert_array_equal(mask, upright(drawing(), tag, tmp_path))
    assert any("and their labels in" in note and "as it is stored: " in note for note in report.notes)


@pytest.mark.parametrize("tag", SIDEWAYS)
@pytest.mark.parametrize("name", EXPORTS)
def test_labels_of_the_upright_size_stay(name: str, tag: int, tmp_path: Path) -> None:
    root = export(name, tmp_path / "export")
    tag_picture(root, tag, (HEIGHT, WIDTH))
    mask, report = converted(root)
    np.testing.assert_array_equal(mask, drawing())
    assert any("does not tell" in note for note in report.notes) == (name == "YOLO")  # it has shares, no size


@pytest.mark.parametrize("tag", [2, 3, 4])
def test_a_size_that_tells_nothing_is_said(tag: int, tmp_path: Path) -> None:
    root = export("COCO", tmp_path / "export")
    tag_picture(root, tag)
    mask, report = converted(root)
    np.testing.assert_array_equal(mask, drawing())
    (note,) = (note for note in report.notes if "does not tell" in note)
    assert note.endswith("u1.png")


def test_a_square_picture_is_said(tmp_path: Path) -> None:
    root = tmp_path / "export"
    picture(root / "images" / "u1.png")
    tag_picture(root, 6, (60, 60))
    (root / "masks").mkdir()
    square = drawing()[:, :60]
    Image.fromarray(square).save(root / "masks" / "u1.png")
    (root / "classes.txt").write_text("background\npad\nwire\nball\n")
    mask, report = converted(root)
    np.testing.assert_array_equal(mask, square)
    assert any("does not tell" in note for note in report.notes)


def test_a_mask_with_the_tag_of_its_picture_is_turned_as_it_is(tmp_path: Path) -> None:
    root = export("masks", tmp_path / "export")
    tag_picture(root, 3)
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(drawing()).save(root / "masks" / "u1.png", exif=exif)
    mask, report = converted(root)
    np.testing.assert_array_equal(mask, upright(drawing(), 3, tmp_path))
    assert not any("orientation tag" in note for note in report.notes)


def compressed(counts: list[int]) -> str:
    """Return run lengths as COCO's text: 5 bits a character, lowest first, differences to the one before the last."""
    text = ""
    for index, count in enumerate(counts):
        value = count - counts[index - 2] if index > 2 else count
        while True:
            bits, value = value & 31, value >> 5
            ends = value == (-1 if bits & 16 else 0)
            text += chr(48 + bits + (0 if ends else 32))
            if ends:
                break
    return text


def without_sizes(root: Path) -> None:
    path = root / "annotations" / "instances.json"
    content = json.loads(path.read_text())
    for key in ("height", "width"):
        del content["images"][0][key]
    path.write_text(json.dumps(content))


def with_compressed_runs(root: Path) -> None:
    without_sizes(root)
    path = root / "annotations" / "instances.json"
    content = json.loads(path.read_text())
    content["annotations"][-1]["segmentation"]["counts"] = compressed(runs(pad().ravel(order="F")))
    path.write_text(json.dumps(content))


def without_size_of_item(root: Path) -> None:
    path = root / "annotations" / "default.json"
    content = json.loads(path.read_text())
    del content["items"][0]["image"]["size"]
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("name", "edit"),
    [("COCO", without_sizes), ("COCO", with_compressed_runs), ("Datumaro", without_size_of_item)],
)
def test_run_lengths_tell_the_size_where_the_picture_s_entry_does_not(
    name: str, edit: Callable[[Path], Any], tmp_path: Path
) -> None:
    root = export(name, tmp_path / "export")
    edit(root)
    tag_picture(root, 6)
    np.testing.assert_array_equal(converted(root)[0], upright(drawing(), 6, tmp_path))
