# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The example that pretrains on a folder: what a user wrote wrong is one line and exit code 2."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "pretrain_folder.py"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "max_epochs=abc"], "max_epochs='abc' must be a whole number"),
        (["--set", "nope=1"], "unexpected keyword argument 'nope'"),
        (["--set", "crops=["], "--set crops=[: the value is no YAML. Write it like max_epochs=50"),
        (["--image-size", "60", "64"], "image_size=(60, 64) does not fit 'aoissl_vit_tiny_patch8'"),
        (["--encoder", "resnet18"], "encoder='resnet18' is no plain vision transformer"),
        (["missing"], "missing: the image folder does not exist"),
        (["empty"], "empty: holds no image"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    for folder in ("pictures", "empty"):
        (tmp_path / folder).mkdir()
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(tmp_path / "pictures" / "a.png")
    pictures, *options = arguments if arguments[0] in {"missing", "empty"} else ["pictures", *arguments]
    monkeypatch.setattr(sys, "argv", ["", str(tmp_path / pictures), str(tmp_path / "encoder"), *options])
    spec: Any = importlib.util.spec_from_file_location("pretrain_folder", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    assert example.main() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert line.startswith("pretrain_folder: ")
    assert not (tmp_path / "encoder").exists()
