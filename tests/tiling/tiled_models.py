# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Pictures with objects of 4 to 40 px, how tests cut them, and what anomalib's engine predicts of their files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from anomalib_aoissl import Tiling

TILING = Tiling((48, 64), 16)
CLASSES = ["background", "disc", "wire"]


def drawn(count: int, size: tuple[int, int], seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return pictures [count, 3, H, W] of 8 bits with discs of 4 to 40 px and wires of 4 px on noise, and masks."""
    random = np.random.default_rng(seed)
    rows, columns = np.indices(size)
    masks = np.zeros((count, *size), np.uint8)
    for mask in masks:
        for _ in range(size[0] * size[1] // 1500):
            middle, radius = random.uniform(0, size), random.uniform(2, 20)
            mask[(rows - middle[0]) ** 2 + (columns - middle[1]) ** 2 <= radius**2] = 1
        for _ in range(max(1, size[1] // 60)):
            left = int(random.integers(0, size[1] - 4))
            mask[:, left : left + 4] = 2
    colours = np.array([[0.2, 0.2, 0.25], [0.7, 0.5, 0.2], [0.9, 0.9, 0.9]], np.float32)
    pictures = colours[masks] + random.normal(0, 0.05, (*masks.shape, 3))
    eight = np.clip(255 * pictures, 0, 255).round().astype(np.float32) / 255
    return torch.from_numpy(eight).movedim(-1, 1).contiguous(), torch.from_numpy(masks)


def array_of(picture: torch.Tensor) -> np.ndarray:
    """Return a picture [3, H, W] in [0, 1] as a camera gives it."""
    return (255 * picture).round().byte().permute(1, 2, 0).numpy()


def predicted(model: Any, sizes: list[tuple[int, int]], folder: Path) -> Iterator[tuple[Path, Any]]:
    """Yield the file of a drawn picture of each size, and the batch that the engine predicts of it."""
    from anomalib.engine import Engine

    (folder / "new").mkdir()
    files = [folder / "new" / f"{index}.png" for index in range(len(sizes))]
    for index, (file, size) in enumerate(zip(files, sizes, strict=True)):
        Image.fromarray(array_of(drawn(1, size, seed=60 + index)[0][0])).save(file)
    engine = Engine(default_root_dir=folder / "results", accelerator="cpu", enable_progress_bar=False, logger=False)
    batches: Any = engine.predict(model, data_path=folder / "new")
    for file, batch in zip(files, batches, strict=True):
        assert Path(batch.image_path[0]) == file
        yield file, batch
