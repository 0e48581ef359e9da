# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What an open model is told on the line: impossible names, thresholds and places change nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rows import Row, table
from small_exports import exported, picture

from anomalib_aoissl import SegmentationOpenVINOInferencer

pytest.importorskip("openvino")

MASK = np.zeros((24, 40), np.uint8)


def opened() -> SegmentationOpenVINOInferencer:
    return SegmentationOpenVINOInferencer(exported())


def taught(**names: Any) -> Callable[[Path], object]:
    """Return an act that teaches a picture and returns which devices are new; an error must change nothing."""

    def act(_: Path) -> object:
        inferencer = opened()
        before = inferencer.bank
        image = picture()
        try:
            inferencer.adapt(image, np.zeros(image.shape[:2], np.uint8), **{"device": "new", **names})
        except ValueError:
            assert inferencer.bank == before
            raise
        return sorted(set(inferencer.bank["entries_of_device"]) - set(before["entries_of_device"]))

    return act


def abstains_above(threshold: Any) -> Callable[[Path], object]:
    def act(_: Path) -> object:
        inferencer = opened()
        inferencer.threshold = threshold
        return inferencer.threshold

    return act


def explained(where: Any) -> Callable[[Path], object]:
    return lambda _: opened().explain(picture(), where).pixels


ROWS = table(
    Row("a device", taught(device="board 7"), value=["board 7"]),
    Row("no device", taught(device=None), r"device=None must be a name such as 'board_7'"),
    Row("empty device", taught(device=""), r"device='' must be a name"),
    Row("blank device", taught(device=" "), r"device=' ' must be a name"),
    Row("device by number", taught(device=7), r"device=7 must be a name"),
    Row("device of two lines", taught(device="a\nb"), r"device='a\\nb' must be a name"),
    Row("image by number", taught(name=7), r"name=7 must be a name"),
    Row("classes as a text", taught(class_names="wire"), r"class_names: the classes must be a list of names"),
    Row("class twice", taught(class_names=["background", "a", "a"]), r"class_names: .*'a' is there twice"),
    Row("class by number", taught(class_names=["background", 3]), r"class_names: each class must be a name"),
    Row(
        "classes without background",
        taught(class_names=["wire", "ball"]),
        r"class_names=\['wire', 'ball'\] must begin with 'background', the model's background",
    ),
    Row("a threshold", abstains_above(np.float32(0.5)), value=0.5),
    Row("no threshold", abstains_above(None), value=None),
    Row("threshold as text", abstains_above("0.5"), r"threshold='0\.5' must be a number in \[0, 1\]"),
    Row("threshold NaN", abstains_above(float("nan")), r"threshold=nan must be a number in \[0, 1\]"),
    Row("threshold in percent", abstains_above(5), r"threshold=5 must be a number in \[0, 1\]"),
    Row("threshold true", abstains_above(True), r"threshold=True must be a number in \[0, 1\]"),
    Row("a pixel", explained((1, np.int64(2))), value=1),
    Row("pixel of fractions", explained((1.5, 2)), r"region=\(1\.5, 2\) must be a pixel as \(row, column\)"),
    Row("pixel of three", explained((1, 2, 3)), r"region=\(1, 2, 3\) must be a pixel as \(row, column\)"),
    Row("pixel as text", explained("1,2"), r"region='1,2' must be a pixel as \(row, column\)"),
)


@pytest.mark.parametrize("row", ROWS)
def test_what_a_model_is_told(row: Row, tmp_path: Path) -> None:
    row.check(tmp_path)


@pytest.mark.parametrize("again", ["same", "other"])
def test_a_picture_that_is_taught_again_under_another_name(again: str, caplog: pytest.LogCaptureFixture) -> None:
    inferencer, image = opened(), picture()
    mask = np.zeros(image.shape[:2], np.uint8)
    inferencer.adapt(image, mask, device="new", name="first.png")
    assert "votes twice" not in caplog.text
    inferencer.adapt(image if again == "same" else image[::-1], mask, device="new", name="./first.png")
    assert ("./first.png looks like first.png, which the bank has already" in caplog.text) == (again == "same")
