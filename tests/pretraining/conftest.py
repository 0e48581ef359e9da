# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Tiny encoders and pictures for the tests of pretraining."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomalib_aoissl.encoder.vit import PatchEncoder

MakeEncoder = Callable[..., PatchEncoder]


@pytest.fixture
def make_encoder() -> MakeEncoder:
    """Return a function that makes a tiny encoder of 8 px patches for 48x64 px."""

    def make(image_size: tuple[int, int] = (48, 64), in_channels: int = 3, **model_args: object) -> PatchEncoder:
        arguments = {"patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2, **model_args}
        encoder = {"architecture": "vit_tiny_patch16_224", "model_args": arguments}
        return PatchEncoder(encoder, image_size=image_size, in_channels=in_channels, pretrained=False)

    return make


@pytest.fixture
def pictures(tmp_path: Path) -> list[tuple[Path, ...]]:
    """Return six pictures on disk, 60x70 px, each a bright bar on noise."""
    random = np.random.default_rng(0)
    files: list[tuple[Path, ...]] = []
    for index in range(6):
        image = random.integers(0, 60, (60, 70, 3), dtype=np.uint8)
        image[10 + 4 * index : 14 + 4 * index, 5:60] = 220
        path = tmp_path / "pictures" / f"unit_{index}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(path)
        files.append((path,))
    return files
