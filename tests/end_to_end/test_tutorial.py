# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The commands and the code of docs/tutorial.md, as they stand there, one after the other on a tiny set."""

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from anomalib.cli import AnomalibCLI
from PIL import Image

import anomalib_aoissl

pytestmark = pytest.mark.usefixtures("short_fits")

TUTORIAL = Path(anomalib_aoissl.__file__).parents[1] / "docs" / "tutorial.md"
QUICK = {
    "train": ["--model.image_size=[64,96]", "--data.num_workers=0", "--trainer.accelerator=cpu"],
    "predict": ["--trainer.accelerator=cpu"],
    "export": [],
}
"""What is added to the commands, so that they take seconds."""


def blocks(language: str) -> list[str]:
    """Return the blocks of a language in the tutorial, in order."""
    return re.findall(rf"```{language}\n(.*?)```", TUTORIAL.read_text(encoding="utf-8"), re.DOTALL)


def commands() -> list[list[str]]:
    """Return the arguments of the ``anomalib`` commands in the tutorial, in order."""
    lines = "".join(blocks("bash")).replace("\\\n", " ").splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("anomalib ")]


def device_folder(drawn_folder: Path, folder: Path) -> None:
    """Make the folder that the tutorial describes: u1.png, u2.png and so on, with masks and names of classes."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for index, mask in enumerate(sorted((drawn_folder / "masks").glob("*.png")), 1):
        shutil.copy(mask, folder / "masks" / f"u{index}.png")
        shutil.copy(drawn_folder / "images" / f"{mask.stem}_ch0.png", folder / "images" / f"u{index}.png")
    (folder / "classes.txt").write_text("background\nwire\nball\nwedge\nepoxy\n")


def test_the_tutorial(drawn_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    draw, *line = blocks("python")
    exec(draw.replace('"])', '"], images_per_device=1, image_size=(64, 64))'), {})  # noqa: S102 - our own document
    assert (tmp_path / "my_device" / "dataset.json").is_file()
    shutil.rmtree("my_device")

    device_folder(drawn_folder, tmp_path / "my_device")
    shutil.copytree("my_device/images", "new_pictures")
    for kind, name in (("images", "first_unit.png"), ("masks", "first_unit_mask.png")):
        shutil.copy(f"my_device/{kind}/u8.png", name)
    given = commands()
    assert [arguments[0] for arguments in given] == ["train", "predict", "export"]
    for arguments in given:
        AnomalibCLI([*arguments, *QUICK[arguments[0]]])

    latest = Path("results/AOISSLRetrieval")
    found = {path.name for path in (latest / "SegmentationFolder" / "latest").iterdir()}
    assert {"images", "masks", "weights", "risk_coverage.png", "config.yaml"} <= found
    assert len(list((latest / "latest" / "masks").iterdir())) == 8

    names: dict[str, Any] = {}
    for block in line:
        exec(block, names)  # noqa: S102 - our own document
    with Image.open("mask.png") as mask:
        assert mask.size == (96, 64)
    assert names["inferencer"].bank["entries_of_device"]["new_device"] > 0
    assert Path("taught.bin").is_file()
    assert "mean_iou" in capsys.readouterr().out
