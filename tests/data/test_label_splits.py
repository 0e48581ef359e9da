# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Splits that an export has already: said where they are given up, kept where that is asked for."""

from pathlib import Path

import pytest
from exports import export, picture

from anomalib_aoissl import SegmentationFolder
from anomalib_aoissl.data.errors import DatasetError
from anomalib_aoissl.data.label_formats import masks, read_labels
from anomalib_aoissl.data.labels.converting import Choices, Report, convert
from anomalib_aoissl.data.labels.source import Source

SPLITS = {"train": 3, "valid": 1, "test": 2}


def yolo(root: Path, layout: str, splits: dict[str, int]) -> Path:
    """Write an export with pictures of the same names in each split."""
    for split, count in splits.items():
        for number in range(count):
            picture(root / layout.format("images", split) / f"dev/{number}.png")
            path = root / layout.format("labels", split) / f"dev/{number}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"0 0 0 {1 + number}e-1 0 {1 + number}e-1 1e-1 0 1e-1")
    (root / "data.yaml").write_text("names: [wire]")
    return root


def converted(root: Path, out: Path, keep_splits: bool = True) -> Report:
    source = Source(root)
    return convert(read_labels(source), source, out, masks.FORMAT, Choices(keep_splits=keep_splits))


@pytest.mark.parametrize("layout", ["{1}/{0}", "{0}/{1}"])
def test_splits_that_are_kept_are_those_of_the_datamodule(layout: str, tmp_path: Path) -> None:
    root = yolo(tmp_path / "export", layout, SPLITS)
    for split in SPLITS:
        picture(root / layout.format("images", split) / "dev" / "free.png")
    out = tmp_path / "out"
    report = converted(root, out)
    assert (report.labelled, report.unlabelled) == (6, 3)
    assert not any("split" in note for note in report.notes)
    _, splits = SegmentationFolder(out).load_splits()
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [3, 1, 2]
    assert {record.stem for record in splits.train} == {"dev/0", "dev/1", "dev/2"}
    assert {record.device for record in splits.train} == {"dev"}
    free = sorted(path.relative_to(out).as_posix() for path in (out / "unlabelled").rglob("*.png"))
    assert free == [f"unlabelled/{split}/dev/free.png" for split in ("test", "train", "val")]


@pytest.mark.parametrize(("splits", "said"), [(SPLITS, "test 2, train 3, val 1"), ({"train": 3}, None)])
def test_splits_that_are_given_up_are_said(splits: dict[str, int], said: str | None, tmp_path: Path) -> None:
    root = yolo(tmp_path / "export", "{1}/{0}", splits)
    report = converted(root, tmp_path / "out", keep_splits=False)
    notes = [note for note in report.notes if "split anew" in note]
    assert len(notes) == (0 if said is None else 1)
    assert said is None or (said in notes[0] and f"labels {root} NEW_FOLDER --keep_splits" in notes[0])


def test_a_datamodule_says_that_an_export_has_splits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    SegmentationFolder(yolo(tmp_path / "export", "{0}/{1}", SPLITS)).load_splits()
    assert "labels " + str(tmp_path / "export") + " NEW_FOLDER --keep_splits" in caplog.text


@pytest.mark.parametrize(
    ("root", "message"),
    [
        (lambda root: export("COCO", root), r"u1\.png lies in none of them"),
        (lambda root: yolo(root, "{1}/{0}", {"val": 1, "test": 1}), "none that is labelled lies in train"),
    ],
)
def test_splits_that_are_not_there_cannot_be_kept(root: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=message):
        converted(root(tmp_path / "export"), tmp_path / "out")  # type: ignore[operator]
    assert not (tmp_path / "out").exists()
