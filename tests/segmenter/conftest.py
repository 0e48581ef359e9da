# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Fixtures of the segmenter's tests: a small set of drawn shapes."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="module", autouse=True)
def _shorter_fits(short_fits: None, all_filters: None) -> Iterator[None]:
    """Fit the pixel head to fewer views, in steps of fewer pixels, than ``short_fits`` does alone."""
    from anomalib_aoissl.pixel_head.learning import fitting, views

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "BATCH", 256)
        patch.setattr(views, "_VIEWS", ((24, 3),))
        yield


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with eight images of bars and discs, 64x64 px; not to be changed."""
    root, random = tmp_path_factory.mktemp("shapes"), np.random.default_rng(0)
    rows, columns = np.mgrid[:64, :64]
    for index in range(8):
        mask = np.zeros((64, 64), dtype=np.uint8)
        mask[8 + 4 * index : 14 + 4 * index, 4:60] = 1
        mask[(rows - 50 + 4 * index) ** 2 + (columns - 10 - 5 * index) ** 2 < 60] = 2
        image = np.array([60, 220, 140])[mask] + random.integers(-20, 20, (64, 64))
        for kind, array in (("images", image), ("masks", mask)):
            path = root / kind / f"{index}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(array.astype(np.uint8)).save(path)
    (root / "classes.txt").write_text("background\nbar\ndisc\n")
    return root
