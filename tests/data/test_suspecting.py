# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Training masks that are probably wrong are said before training: swapped, inverted, or contradicting a copy's."""

import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from lightning.pytorch.trainer.states import TrainerFn
from PIL import Image

from anomalib_aoissl import SegmentationFolder
from anomalib_aoissl.data.labels.suspecting import suspicious
from anomalib_aoissl.data.labels.suspicion import MaskSuspicion

Change = Callable[[Path], object]


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What the package warns of."""
    found: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: found.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("anomalib_aoissl")
    logger.addHandler(handler)
    yield found
    logger.removeHandler(handler)


def folder(root: Path) -> Path:
    """Write seven pictures of bright boxes on a dark, noisy ground, and their masks; t0 is the test's."""
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    (root / "classes.txt").write_text("background\npad\nlead\n")
    for seed, name in enumerate(("u0", "u1", "u2", "u3", "u4", "u5", "t0")):
        rng = np.random.default_rng(seed)
        mask = np.zeros((120, 160), dtype=np.uint8)
        for index in range(3):
            top, left = int(rng.integers(15, 80)), 15 + 45 * index
            mask[top : top + int(rng.integers(8, 20)), left : left + int(rng.integers(15, 35))] = 1 + index % 2
        picture = np.clip(50 + 130 * (mask > 0) + rng.normal(0, 8, mask.shape), 0, 255).astype(np.uint8)
        Image.fromarray(picture).save(root / "images" / f"{name}.png")
        Image.fromarray(mask).save(root / "masks" / f"{name}.png")
    return root


def said(root: Path, lines: list[str], *stages: str | None) -> list[str]:
    """Return the warnings of one datamodule that is set up for the stages, without the folder's name."""
    data = SegmentationFolder(
        root, num_workers=0, val_ratio=0.0, device_pattern=r"^\w", train_devices=["u"], test_devices=["t"]
    )
    for stage in stages or ("fit",):
        data.setup(stage)
    return [line.replace(f"{root}/", "") for line in lines]


def edited(root: Path, name: str, edit: Callable[[np.ndarray], np.ndarray]) -> None:
    path = root / "masks" / f"{name}.png"
    with Image.open(path) as mask:
        values = np.array(mask)
    Image.fromarray(edit(values).astype(np.uint8)).save(path)


def swapped(root: Path) -> None:
    first, second = root / "masks" / "u0.png", root / "masks" / "u1.png"
    first.rename(root / "aside.png")
    second.rename(first)
    (root / "aside.png").rename(second)


def copied(root: Path) -> None:
    for kind in ("images", "masks"):
        shutil.copy(root / kind / "u2.png", root / kind / "u9.png")


def test_right_masks_and_a_copy_that_agrees_are_no_warning(tmp_path: Path, lines: list[str]) -> None:
    root = folder(tmp_path)
    copied(root)
    edited(root, "u9", lambda mask: np.where(mask == 2, 255, mask))
    assert said(root, lines) == []


def test_two_swapped_masks_are_named(tmp_path: Path, lines: list[str]) -> None:
    root = folder(tmp_path)
    swapped(root)
    found = said(root, lines)
    assert sorted(line.split(":")[0] for line in found) == ["images/u0.png", "images/u1.png"]
    assert all("its mask is probably wrong" in line and "suspicion" in line for line in found)


def test_an_inverted_mask_is_named(tmp_path: Path, lines: list[str]) -> None:
    root = folder(tmp_path)
    edited(root, "u3", lambda mask: np.where(mask > 0, 0, 1))
    (line,) = said(root, lines)
    assert line.startswith("images/u3.png: its mask is probably wrong, it may be inverted")


def test_a_picture_that_is_there_twice_with_masks_that_contradict(tmp_path: Path, lines: list[str]) -> None:
    root = folder(tmp_path)
    copied(root)
    edited(root, "u9", lambda mask: np.where(mask == 2, 1, mask))
    assert said(root, lines) == [
        "1 training pictures have copies with other masks, so that one is wrong: masks/u2.png and masks/u9.png."
    ]


@pytest.mark.parametrize("stage", [None, "fit", TrainerFn.FITTING])
def test_masks_are_looked_at_once_and_before_a_fit_alone(tmp_path: Path, lines: list[str], stage: str | None) -> None:
    root = folder(tmp_path)
    edited(root, "u3", lambda mask: np.where(mask > 0, 0, 1))
    assert said(root, lines, "test", "predict", "validate") == []
    assert len(said(root, lines, "test", stage, "fit", None)) == 1


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([0.5, 0.6, 0.7, 1.01], [1.01]),  # 1.5 times the median is below 1
        ([0.5, 0.6, 0.7, 0.99], []),
        ([0.9, 0.9, 0.9, 1.19], []),  # the median says that borders are weak here
        ([0.9, 0.9, 0.9, 1.21], [1.21]),
        ([0.7, 0.7, 0.7, 1.04, 1.06], [1.06]),
        ([], []),
    ],
)
def test_the_limit_follows_the_usual_suspicion(numbers: list[float], expected: list[float]) -> None:
    found = [MaskSuspicion(Path("a.png"), number, "", 0.2, b"") for number in numbers]
    assert [entry.suspicion for entry in suspicious(found)] == expected
