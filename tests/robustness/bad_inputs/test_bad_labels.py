# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Labels of other tools that are broken: one error that names the file, or one line on what was left out."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exports import export, picture
from PIL import Image
from rows import Row, table

from anomalib_aoissl.data.errors import DatasetError
from anomalib_aoissl.data.label_formats import masks, read_labels
from anomalib_aoissl.data.labels.converting import Choices, Report, convert
from anomalib_aoissl.data.labels.source import Source

Change = Callable[[Path], object]


def converted(root: Path, choices: Choices | None = None, images: Path | None = None) -> Report:
    source = Source(root, images)
    report = convert(read_labels(source), source, root.with_name("out"), masks.FORMAT, choices)
    assert not list(root.parent.glob(".part-*"))
    return report


def act(name: str, change: Change, choices: Choices | None = None) -> Callable[[Path], list[str]]:
    """Return an act that converts an export after a change to it; an error must leave nothing behind."""

    def run(folder: Path) -> list[str]:
        root = export(name, folder / "export")
        change(root)
        try:
            report = converted(root, choices)
        except DatasetError:
            assert sorted(path.name for path in folder.iterdir()) == ["export"]
            raise
        return report.notes

    return run


def replaced(file: str, old: str, new: str, count: int = 1) -> Change:
    def change(root: Path) -> None:
        path = root / file
        text = path.read_text()
        assert re.search(old, text, flags=re.DOTALL), text
        path.write_text(re.sub(old, new, text, count=count, flags=re.DOTALL))

    return change


def edited(file: str, edit: Callable[[Any], object]) -> Change:
    def change(root: Path) -> None:
        content = json.loads((root / file).read_text())
        edit(content)
        (root / file).write_text(json.dumps(content))

    return change


COCO = "annotations/instances.json"
STUDIO = "project-1.json"


def with_bitmask(content: Any, text: str) -> None:
    value = {"imageDataURL": f"data:image/png;base64,{text}", "bitmasklabels": ["pad"]}
    content[0]["annotations"][0]["result"][2].update(type="bitmasklabels", value=value)


def small_png() -> str:
    buffer = io.BytesIO()
    Image.new("RGBA", (4, 5)).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def twice(content: Any) -> None:
    content["categories"][1]["name"] = "pad"


ERRORS = table(
    Row(
        "JSON",
        act("COCO", replaced(COCO, r"\}\]", r"}\n}]")),
        r"instances\.json: is broken JSON \(line 2, column 1",
    ),
    Row(
        "XML",
        act("CVAT", replaced("annotations.xml", "</label>", "")),
        r"annotations\.xml: is broken XML \(line 2, col",
    ),
    Row(
        "XML entity",
        act("CVAT", replaced("annotations.xml", "<annotations>", "<!DOCTYPE a [<!ENTITY b 'c'>]><annotations>")),
        "annotations.xml: declares XML entities",
    ),
    Row(
        "YAML",
        act("YOLO", lambda root: (root / "data.yaml").write_text("names: [a")),
        r"data\.yaml: is broken YAML.*line 1",
    ),
    Row(
        "no category name",
        act("COCO", edited(COCO, lambda c: c["categories"][0].pop("name"))),
        r"instances\.json: class 1 of 3 has no name",
    ),
    Row("two of one name", act("COCO", edited(COCO, twice)), r"instances\.json: two classes are called 'pad'"),
    Row(
        "two of one name in CVAT",
        act("CVAT", replaced("annotations.xml", "ball</name>", "pad</name>")),
        r"annotations\.xml: two classes are called 'pad'",
    ),
    Row(
        "two of one name in YOLO",
        act("YOLO", replaced("data.yaml", "ball", "pad")),
        r"data\.yaml: two classes are called 'pad'",
    ),
    Row("no label", act("LabelMe", replaced("u1.json", '"wire"', '""')), r"u1\.json: shape 1 has no label"),
    Row(
        "empty export",
        act("COCO", edited(COCO, lambda c: c.update(annotations=[]))),
        r"COCO export of 1 pictures holds no labels",
    ),
    Row(
        "boxes only",
        act("COCO", edited(COCO, lambda c: [a.update(segmentation=[]) for a in c["annotations"]])),
        r"holds no labels \(.*instances\.json: 3 annotations have no segmentation",
    ),
    Row(
        "all pictures missing",
        act("COCO", lambda root: (root / "images" / "u1.png").unlink()),
        r"instances\.json: none of its 1 pictures is found, such as u1\.png.*--images",
    ),
    Row(
        "unknown category",
        act("COCO", edited(COCO, lambda c: c["annotations"][0].update(category_id=9))),
        r"instances\.json: annotation 1: \"category_id\" 9 is none",
    ),
    Row(
        "odd points",
        act("COCO", edited(COCO, lambda c: c["annotations"][0].update(segmentation=[[1, 2, 3]]))),
        r"instances\.json: annotation 1: its points",
    ),
    Row(
        "NaN",
        act("COCO", replaced(COCO, r"\[10, 5, ", "[NaN, 5, ")),
        r"instances\.json: annotation 1: one of its points is not finite",
    ),
    Row(
        "short run lengths",
        act("COCO", edited(COCO, lambda c: c["annotations"][2]["segmentation"].update(counts=[5]))),
        r"annotation 3: its run lengths sum to 5 px, not to 60x80",
    ),
    Row(
        "cut run lengths",
        act("COCO", edited(COCO, lambda c: c["annotations"][2]["segmentation"].update(counts="o"))),
        r"annotation 3: its compressed run lengths end within a number",
    ),
    Row(
        "cut brush",
        act(
            "Label Studio",
            edited(STUDIO, lambda c: c[0]["annotations"][0]["result"][2]["value"]["rle"].__delitem__(slice(40, None))),
        ),
        r"project-1\.json: task 1, result 3: its brush cannot be decoded",
    ),
    Row(
        "bitmask that is none",
        act("Label Studio", edited(STUDIO, lambda c: with_bitmask(c, "bm9uZQ=="))),
        r"project-1\.json: task 1, result 3: its mask is no PNG in base64",
    ),
    Row(
        "bitmask of another size",
        act("Label Studio", edited(STUDIO, lambda c: with_bitmask(c, small_png()))),
        r"task 1, result 3: its bitmask has 5x4 px \(height x width\), the picture has 60x80",
    ),
    Row(
        "two pictures in a task",
        act("Label Studio", edited(STUDIO, lambda c: c[0]["annotations"][0]["result"][2].update(to_name="other"))),
        r"task 1, result 3: is of another picture, or size of it, than those before",
    ),
    Row(
        "all of another size",
        act("COCO", lambda root: Image.new("L", (90, 60)).save(root / "images" / "u1.png")),
        r"export: none of its 1 pictures has the size of its labels, such as u1\.png with 60x90 px .* labels of 60x80",
    ),
    Row(
        "colour without a class",
        act("Pascal VOC", replaced("labelmap.txt", "9,8,7", "9,8,6")),
        r"u1\.png: the colour \(9, 8, 7\).*is not in the",
    ),
    Row(
        "one colour twice",
        act("Pascal VOC", replaced("labelmap.txt", "9,8,7", "0,255,0")),
        r"labelmap\.txt: the class 'ball' has the colour \(0, 255, 0\) of another",
    ),
    Row(
        "class index",
        act("YOLO", replaced("labels/train/u1.txt", "^1 ", "7 ")),
        r"u1\.txt: line 1: the class 7 has no name; 3 are named",
    ),
    Row(
        "coordinates in px",
        act("YOLO", lambda root: (root / "labels/train/u1.txt").write_text("2 40 4 46 4 46 10")),
        r"export: labels none of its 1 pictures: none of their shapes has a pixel\. .*YOLO has shares of the picture",
    ),
    Row("no names", act("YOLO", lambda root: (root / "data.yaml").unlink()), r"has no data\.yaml with names"),
    Row(
        "CVAT for video",
        act("CVAT", replaced("annotations.xml", "<image", "<track/><image")),
        'annotations.xml: is "CVAT for video"',
    ),
    Row(
        "PNG export",
        act("masks", lambda root: (root / "classes.txt").write_bytes(b"\xff")),
        r"classes\.txt: .*not UTF-8",
    ),
    Row(
        "unknown label in the map",
        act("COCO", lambda _: None, Choices(renamed={"lead": "wire"})),
        r"--map names 'lead', which is no label of the export",
    ),
    Row(
        "classes leave one out",
        act("COCO", lambda _: None, Choices(classes=["wire", "pad"])),
        r"leaves out the label 'ball'",
    ),
    Row(
        "pattern",
        act("COCO", lambda _: None, Choices(device_pattern="^board")),
        r"--device_pattern '\^board' does not match the name 'u1'",
    ),
)


def second(root: Path) -> None:
    """Name a picture that is not there."""
    content = json.loads((root / COCO).read_text())
    content["images"].append({"id": 8, "file_name": "gone.png", "height": 60, "width": 80})
    (root / COCO).write_text(json.dumps(content))


def moved(root: Path) -> None:
    content = json.loads((root / COCO).read_text())
    content["annotations"].append({"image_id": 7, "category_id": 2, "segmentation": [[90, 5, 99, 5, 99, 9]]})
    (root / COCO).write_text(json.dumps(content))


def line_drawn(root: Path) -> None:
    content = json.loads((root / "u1.json").read_text())
    content["shapes"].append({"label": "wire", "points": [[1, 1], [9, 9]], "shape_type": "line"})
    (root / "u1.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("name", "change", "line"),
    [
        ("COCO", second, r"1 pictures named in .*instances\.json are missing and left out: gone\.png"),
        ("COCO", moved, r"1 shapes of .*instances\.json have no pixel \(outside of the picture.*: wire in u1\.png"),
        ("LabelMe", line_drawn, r"export: 1 line shapes have no area and are left out"),
        ("Pascal VOC", lambda root: (root / "labelmap.txt").unlink(), None),
    ],
)
def test_what_is_left_out_is_said_in_one_line(name: str, change: Change, line: str | None, tmp_path: Path) -> None:
    if line is None:
        with pytest.raises(DatasetError, match=r"u1\.png: the mask is colour-coded"):
            act(name, change)(tmp_path)
        return
    notes: Any = act(name, change)(tmp_path)
    assert len([note for note in notes if re.search(line, note)]) == 1, notes


@pytest.mark.parametrize("row", ERRORS)
def test_a_broken_export_is_one_error_that_names_the_file(row: Row, tmp_path: Path) -> None:
    row.check(tmp_path)


def test_labels_of_another_size_are_left_out_and_said(tmp_path: Path) -> None:
    root = export("COCO", tmp_path / "export")
    picture(root / "images" / "u2.png")
    edited(COCO, lambda c: c["images"].append({"id": 8, "file_name": "u2.png", "height": 30, "width": 40}))(root)
    edited(
        COCO, lambda c: c["annotations"].append({"image_id": 8, "category_id": 1, "segmentation": [[1, 1, 9, 1, 9, 9]]})
    )(root)
    report = converted(root)
    assert [(path.name, mask.shape) for path, mask in report.misfits.items()] == [("u2.png", (30, 40))]
    assert any("another size" in note and "u2.png" in note for note in report.notes)
    assert report.labelled == 1


def test_nothing_is_overwritten_and_nothing_leaves_the_folder(tmp_path: Path) -> None:
    root = export("COCO", tmp_path / "export")
    edited(COCO, lambda c: c["images"][0].update(file_name="../../../etc/u1.png"))(root)
    converted(root)
    assert sorted(path.name for path in tmp_path.rglob("u1.png")) == ["u1.png"] * 3
    with pytest.raises(DatasetError, match="out: exists already"):
        converted(root)
    source = Source(root)
    with pytest.raises(DatasetError, match="lies in the export"):
        convert(read_labels(source), source, root / "masks_of_it", masks.FORMAT)


def test_what_is_no_export(tmp_path: Path) -> None:
    for path, what in (("gone", "does not exist"), ("export.zip", "is an archive. Unpack it"), ("empty", "is empty")):
        if path == "empty":
            (tmp_path / path).mkdir()
        elif path != "gone":
            (tmp_path / path).write_bytes(b"PK")
        with pytest.raises(DatasetError, match=what):
            Source(tmp_path / path)
    picture(tmp_path / "pictures" / "a.png")
    with pytest.raises(DatasetError, match=r"pictures: holds labels of no known format.* COCO, Datumaro"):
        read_labels(Source(tmp_path / "pictures"))
    brush = tmp_path / "brush" / "task-1-annotation-2-by-1-tag-wire-0.png"
    picture(brush)
    with pytest.raises(DatasetError, match=r"PNG export, which does not say the pictures' names\. Export as JSON"):
        read_labels(Source(brush.parent))


def test_two_pictures_of_one_name(tmp_path: Path) -> None:
    root = export("COCO", tmp_path / "export")
    picture(root / "images" / "a" / "u1.png")
    (root / "images" / "u1.png").rename(root / "images" / "b.png")
    picture(root / "images" / "b" / "u1.png")
    with pytest.raises(DatasetError, match=r"has the name of .*u1\.png"):
        converted(root)
    edited(COCO, lambda c: c["images"][0].update(file_name="b/u1.png"))(root)
    assert converted(root).labelled == 1
    assert (tmp_path / "out" / "masks" / "b" / "u1.png").is_file()


def test_a_full_disk_leaves_no_half_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = export("COCO", tmp_path / "export")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("anomalib_aoissl.data.labels.converting.shutil.copyfile", full)
    with pytest.raises(OSError, match=r"The disk is full.*out'"):
        converted(root)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["export"]


def test_unlabelled_pictures_are_kept_apart(tmp_path: Path) -> None:
    root = export("COCO", tmp_path / "export")
    Image.fromarray(np.zeros((60, 80), np.uint8)).save(root / "images" / "free.png")
    edited(COCO, lambda c: c["images"].append({"id": 8, "file_name": "free.png", "height": 60, "width": 80}))(root)
    assert converted(root).labelled == 1
    assert (tmp_path / "out" / "unlabelled" / "free.png").is_file()
    source = Source(root)
    report = convert(read_labels(source), source, tmp_path / "all", masks.FORMAT, Choices(empty_is_background=True))
    assert (report.labelled, report.unlabelled) == (2, 0)
