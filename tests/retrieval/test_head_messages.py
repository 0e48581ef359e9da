# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What training says where labelled images show too little of a class to fit the pixel head, or to judge its fit."""

import logging
from pathlib import Path

import numpy as np
import pytest
from anomalib.engine import Engine
from PIL import Image

from anomalib_aoissl import AOISSLRetrieval, SegmentationFolder

pytestmark = pytest.mark.usefixtures("short_fits")

QUIET = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}


def fitted(folder: Path, tiny_encoder: dict, shown: list[set[int]]) -> AOISSLRetrieval:
    """Return a model that learnt images whose bars are of these classes, of background, wire, ball and pit.

    Without a class an image is wire all over.
    """
    random = np.random.default_rng(3)
    for name in ("images/a", "images/b", "masks/a", "masks/b"):
        (folder / name).mkdir(parents=True)
    for number, classes in enumerate([*shown, {1}]):
        file = f"{'a' if number < len(shown) else 'b'}/{number}.png"  # b is tested
        mask, image = np.full((32, 48), 0 if classes else 1, np.uint8), random.integers(0, 60, (32, 48), dtype=np.uint8)
        for index in classes:
            mask[4:28, 12 * index : 12 * index + 10] = index
            image[mask == index] += np.uint8(50 * index)
        Image.fromarray(image).save(folder / "images" / file)
        Image.fromarray(mask).save(folder / "masks" / file)
    (folder / "classes.txt").write_text("background\nwire\nball\npit\n")
    data = SegmentationFolder(folder, num_workers=0, test_devices=["b"], val_ratio=0.0)
    model = AOISSLRetrieval(encoder={**tiny_encoder, "pretrained": False}, image_size=(32, 48), visualizer=False)
    Engine(default_root_dir=folder / "results", **QUIET).fit(model, datamodule=data)
    return model


def test_a_class_of_one_image_is_named(tmp_path: Path, tiny_encoder: dict, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        model = fitted(tmp_path, tiny_encoder, [{1, 2}, {1, 2}, {1, 2, 3}])
    assert model.model.has_fitted_head
    assert not model.model.head.has_autocontext
    assert "Too few labelled images show ['pit']: the pixel head has no autocontext" in caplog.text
    assert "No labelled pixel shows" not in caplog.text


def test_a_class_of_no_image_is_named(tmp_path: Path, tiny_encoder: dict, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        model = fitted(tmp_path, tiny_encoder, [{1, 3}, {1, 3}])
    assert model.model.has_fitted_head
    assert "No labelled pixel shows ['ball']: no mask will. Label an image that does." in caplog.text
    assert "Too few labelled images" not in caplog.text
    # 24 of 32 rows and 10 of 48 columns are a bar.
    assert "Their pixels: 0 background 68.75%, 1 wire 15.62%, 3 pit 15.62%." in caplog.text


def test_one_class_alone_leaves_the_vote(tmp_path: Path, tiny_encoder: dict, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        model = fitted(tmp_path, tiny_encoder, [set(), set()])
    assert not model.model.has_fitted_head
    assert "show one class only, ['wire']: there is nothing to tell apart" in caplog.text
