# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""A small model that was taught pictures in tiles, and its export, for the tests of this folder."""

from pathlib import Path

import pytest
from tiled_models import CLASSES, TILING, drawn

from anomalib_aoissl import AOISSLRetrieval
from anomalib_aoissl.data.describing.file_format import FileFormat


@pytest.fixture(scope="module")
def tiled_model(short_fits: None, all_filters: None, tiny_encoder: dict) -> AOISSLRetrieval:
    """Return a model with a pixel head that knows two pictures of 80x112 px in tiles of 48x64; not to be changed."""
    vote = {"temperature": 0.05}  # of random weights: a sharper vote overrules the head now and then
    model = AOISSLRetrieval(encoder={**tiny_encoder, "pretrained": False}, tiling=TILING, vote=vote, abstain=0.1).eval()
    model.set_dataset(CLASSES, FileFormat())
    pictures, masks = drawn(2, (80, 112), seed=1)
    model.add(pictures, masks, ["device"] * 2, ["first", "second"])
    model.calibrate()
    return model


@pytest.fixture(scope="module")
def tiled_xml(tiled_model: AOISSLRetrieval, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiled_model.to_openvino(tmp_path_factory.mktemp("tiled"))
