# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""A small model that was taught pictures in tiles, and its export, for the tests of this folder."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiled_models import CLASSES, TILING, drawn

from anomalib_aoissl import AOISSLRetrieval
from anomalib_aoissl.data.describing.file_format import FileFormat


@pytest.fixture(scope="module")
def tiled_files(
    short_fits: None, all_filters: None, tiny_encoder: dict, made_once: Callable[[str, Callable[[Path], object]], Path]
) -> Path:
    """Return a folder with a model that knows two pictures of 80x112 px in tiles of 48x64, and its export."""

    def fill(folder: Path) -> None:
        vote = {"temperature": 0.05}  # of random weights: a sharper vote overrules the head now and then
        encoder = {**tiny_encoder, "pretrained": False}
        model = AOISSLRetrieval(encoder=encoder, tiling=TILING, vote=vote, abstain=0.1).eval()
        model.set_dataset(CLASSES, FileFormat())
        pictures, masks = drawn(2, (80, 112), seed=1)
        model.add(pictures, masks, ["device"] * 2, ["first", "second"])
        model.calibrate()
        torch.save(model, folder / "model.pt")
        model.to_openvino(folder)

    return made_once("tiled_model", fill)


@pytest.fixture(scope="module")
def tiled_model(tiled_files: Path) -> AOISSLRetrieval:
    """Return the model, which has a pixel head; not to be changed."""
    return torch.load(tiled_files / "model.pt", weights_only=False)


@pytest.fixture(scope="module")
def tiled_xml(tiled_files: Path) -> Path:
    return tiled_files / "weights" / "openvino" / "model.xml"
