# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Pictures whose shapes all vanish are not labelled: as background, their parts would be learnt wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exports import drawing, export, picture
from PIL import Image

from anomalib_aoissl.data.label_formats import masks, read_labels
from anomalib_aoissl.data.labels.converting import Choices, Report, convert
from anomalib_aoissl.data.labels.source import Source

Change = Callable[[Path], object]
COCO = "annotations/instances.json"


def converted(root: Path, choices: Choices | None = None) -> Report:
    source = Source(root)
    return convert(read_labels(source), source, root.with_name("out"), masks.FORMAT, choices)


def edited(edit: Callable[[Any], object]) -> Change:
    def change(root: Path) -> None:
        content = json.loads((root / COCO).read_text())
        edit(content)
        (root / COCO).write_text(json.dumps(content))

    return change


def annotation(ring: list[float], category: int = 1) -> dict[str, Any]:
    return {"image_id": 8, "category_id": category, "segmentation": [ring]}


def with_second(name: str, folder: Path) -> Path:
    """Return an export with a second picture, u2, beside u1; COCO names it too."""
    root = export(name, folder / "export")
    (first,) = (root / "images").rglob("u1.png")
    picture(first.with_name("u2.png"))
    if name == "COCO":
        edited(lambda c: c["images"].append({"id": 8, "file_name": "u2.png", "height": 60, "width": 80}))(root)
    return root


@pytest.mark.parametrize(
    ("name", "change", "choices", "note"),
    [
        (
            "YOLO",
            lambda root: (root / "labels/train/u2.txt").write_text("2 40 4 46 4 46 10\n1 10 5 50 5 50 8\n"),
            None,
            r"1 pictures of .*u2\.txt go to unlabelled/, as none of their shapes has a pixel: labels/train/u2",
        ),
        (
            "COCO",
            edited(lambda c: c["annotations"].append(annotation([0.1, 0.1, 0.6, 0.1, 0.6, 0.6]))),
            Choices(empty_is_background=True),
            r"1 pictures of .*instances\.json go to unlabelled/, as none of their shapes has a pixel: u2\.png",
        ),
        (
            "COCO",
            edited(lambda c: c["annotations"].append(annotation([]))),
            None,
            r"1 shapes of .*instances\.json have no pixel .*: pad in u2\.png",
        ),
        (
            "COCO",
            edited(lambda c: c["annotations"].append(annotation([10, 5, 50, 5, 50, 8], 2))),
            Choices(renamed={"wire": ""}),
            r"1 pictures of .*instances\.json go to unlabelled/, as --map leaves all of their labels out: u2\.png",
        ),
        (
            "masks",
            lambda root: Image.fromarray(np.where(drawing() == 2, 2, 0).astype(np.uint8)).save(root / "masks/u2.png"),
            Choices(renamed={"wire": ""}),
            r"1 pictures of .*u2\.png go to unlabelled/, as --map leaves all of their labels out: images/u2",
        ),
    ],
)
def test_a_picture_whose_shapes_all_vanish_is_not_labelled(
    name: str, change: Change, choices: Choices | None, note: str, tmp_path: Path
) -> None:
    root = with_second(name, tmp_path)
    change(root)
    report = converted(root, choices)
    assert (report.labelled, report.unlabelled) == (1, 1)
    assert [line for line in report.notes if re.search(note, line)], report.notes
    assert [path.name for path in (tmp_path / "out" / "unlabelled").rglob("*.png")] == ["u2.png"]
    assert [path.stem for path in (tmp_path / "out" / "masks").rglob("*.png")] == ["u1"]


@pytest.mark.parametrize(
    ("choices", "values"),
    [
        (Choices(renamed={"wire": ""}, empty_is_background=True), {0}),
        (Choices(renamed={"wire": "background"}), {0}),
        (Choices(renamed={"wire": "ignore"}), {0, 255}),
    ],
)
def test_a_picture_that_the_user_calls_background_stays_labelled(
    choices: Choices, values: set[int], tmp_path: Path
) -> None:
    root = with_second("COCO", tmp_path)
    edited(lambda c: c["annotations"].append(annotation([10, 5, 50, 5, 50, 8], 2)))(root)
    assert converted(root, choices).labelled == 2
    with Image.open(tmp_path / "out" / "masks" / "u2.png") as mask:
        assert set(np.unique(np.array(mask))) == values


def test_a_mask_file_without_a_part_says_that_the_picture_has_none(tmp_path: Path) -> None:
    root = with_second("masks", tmp_path)
    Image.fromarray(np.zeros((60, 80), np.uint8)).save(root / "masks" / "u2.png")
    report = converted(root, Choices(renamed={"wire": ""}))
    assert (report.labelled, report.unlabelled) == (2, 0)
    assert report.notes == []


def test_shapes_outside_are_said_of_all_their_files(tmp_path: Path) -> None:
    root = export("YOLO", tmp_path / "export")
    for number in range(2, 9):
        picture(root / "images" / "train" / f"u{number}.png")
        (root / "labels" / "train" / f"u{number}.txt").write_text("2 40 4 46 4 46 10\n")
    report = converted(root)
    assert (report.labelled, report.unlabelled) == (1, 7)
    (note,) = (note for note in report.notes if "have no pixel" in note)
    assert re.match(r"7 shapes of 7 files \(\S*u2\.txt, \S*u3\.txt, .* and 2 more\) have no pixel", note)
