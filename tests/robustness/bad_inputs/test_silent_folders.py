# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Folders whose files fit together and yet would teach or measure the wrong thing: one line says so."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from rows import Row, table

from anomalib_aoissl import SegmentationFolder

Change = Callable[[Path], object]


def write(path: Path, value: int, orientation: int = 1, size: tuple[int, int] = (8, 12)) -> None:
    """Write a picture of one value, with an orientation tag."""
    pixels = np.full(size, value, np.uint8)
    if path.suffix == ".tif":
        tifffile.imwrite(path, pixels, extratags=[(274, "H", 1, orientation, True)])
        return
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif)


def read(change: Change, classes: str = "background\nwire\n") -> Callable[[Path], object]:
    """Return an act that reads four pictures after a change, u1 being the test's; returns what the log warns of."""

    def act(root: Path) -> object:
        for kind in ("images", "masks"):
            (root / kind).mkdir()
        for index in range(4):
            write(root / "images" / f"u{index}.png", index + 1)
            write(root / "masks" / f"u{index}.png", 1)
        (root / "classes.txt").write_text(classes)
        change(root)
        lines: list[str] = []
        handler = logging.Handler(logging.WARNING)
        handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
        logger = logging.getLogger("anomalib_aoissl")
        logger.addHandler(handler)
        try:
            SegmentationFolder(
                root, num_workers=0, val_ratio=0.0, device_pattern=r"\d", train_devices=["0", "2", "3"]
            ).setup()
        finally:
            logger.removeHandler(handler)
        return [line.replace(f"{root}/", "") for line in lines]

    return act


def image(name: str, orientation: int, size: tuple[int, int] = (8, 12)) -> Change:
    """Return a change that turns the picture u2 by a tag."""

    def change(root: Path) -> None:
        (root / "images" / "u2.png").unlink()
        write(root / "images" / name, 77, orientation, size)

    return change


def both(change: Change, orientation: int, size: tuple[int, int] = (8, 12)) -> Change:
    """Return a change that writes the mask of u2 anew as well."""
    return lambda root: (change(root), write(root / "masks" / "u2.png", 1, orientation, size))


def copied(root: Path) -> None:
    shutil.copy(root / "images" / "u3.png", root / "images" / "u1.png")


def linked(root: Path) -> None:
    (root / "images" / "u1.png").unlink()
    (root / "images" / "u1.png").symlink_to(root / "images" / "u3.png")


def spelt(root: Path) -> None:
    """Name the picture u2 with an umlaut of one code point, and its mask with the one of two, as a Mac does."""
    for kind, name in (("images", "gr\u00fcn2.png"), ("masks", "gru\u0308n2.png")):
        (root / kind / "u2.png").rename(root / kind / name)


TURNED = "1 pictures are turned by their orientation tag; look whether their masks, which have none, lie on them: "
COPIES = (
    "1 test pictures are copies of training pictures, so that their figures are too good: "
    "images/u1.png of images/u3.png."
)

ROWS = table(
    Row("nothing unusual", read(lambda _: None), value=[]),
    Row("upside down by its tag", read(image("u2.png", 3)), value=[f"{TURNED}images/u2.png."]),
    Row("a mirrored TIFF", read(image("u2.tif", 2)), value=[f"{TURNED}images/u2.tif."]),
    Row("a square by its tag", read(both(image("u2.png", 6, (9, 9)), 1, (9, 9))), value=[f"{TURNED}images/u2.png."]),
    Row("a mask with the same tag", read(both(image("u2.png", 3), 3)), value=[]),
    Row("a mask that was drawn upright", read(both(image("u2.png", 6), 1, (12, 8))), value=[]),
    Row(
        "a mask that was drawn on the stored picture", read(image("u2.png", 6)), "12x8, whose orientation tag turns it"
    ),
    Row(
        "a mask that is turned itself",
        read(lambda root: write(root / "masks/u2.png", 1, 1, (12, 8))),
        r"its image u2\.png has 8x12: one of them is turned; they must be equal",
    ),
    Row("an umlaut that is spelt in two ways", read(spelt), value=[]),
    Row("a copy in the test", read(copied), value=[COPIES]),
    Row("a link in the test", read(linked), value=[COPIES]),
    Row(
        "background last",
        read(lambda _: None, "wire\nBackground\n"),
        r"classes\.txt: 'background' is the class 1, and 'wire' the class 0\. .* put its name first",
    ),
    Row("background by another name", read(lambda _: None, "good\nwire\n"), value=[]),
)


@pytest.mark.parametrize("row", ROWS)
def test_a_folder_that_looks_right(row: Row, tmp_path: Path) -> None:
    row.check(tmp_path)
