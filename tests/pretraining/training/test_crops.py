# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from anomalib_aoissl.data.errors import DatasetError
from anomalib_aoissl.pretraining.training.augmentation import CropKind, Crops, Light, structure_weights
from anomalib_aoissl.pretraining.training.images import CropDataset
from anomalib_aoissl.pretraining.training.module import crop_loader

Files = list[tuple[Path, ...]]


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_crops_fall_where_the_structure_is() -> None:
    image = torch.full((1, 96, 128), 100, dtype=torch.uint8)
    image[:, 64:96, 96:128] = torch.randint(0, 255, (1, 32, 32), dtype=torch.uint8, generator=_generator())
    assert structure_weights(image).shape == (12, 16)
    hits = {}
    for share in (0.0, 1.0):
        crops = Crops({"crop": CropKind(200, (32, 32))}, structure=share)
        found = crops(image, structure_weights(image), _generator())["crop"]
        hits[share] = float((found.float().flatten(1).std(dim=1) > 1).float().mean())
    assert hits[1.0] > 0.9
    assert hits[0.0] < 0.6


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("scale", [(1.0, 1.0), (0.5, 2.0)])
def test_crops_have_their_size_and_repeat_by_seed(channels: int, scale: tuple[float, float]) -> None:
    image = torch.randint(0, 255, (channels, 60, 90), dtype=torch.uint8)
    crops = Crops({"a": CropKind(2, (24, 40), scale), "b": CropKind(1, (64, 32), scale)})
    first, again = (crops(image, structure_weights(image), _generator(1)) for _ in range(2))
    assert first["a"].shape == (2, channels, 24, 40)
    assert first["b"].shape == (1, channels, 64, 32)
    assert torch.equal(first["a"], again["a"])


def test_an_unzoomed_crop_is_a_turned_piece_of_the_picture() -> None:
    image = torch.arange(64 * 64).view(1, 64, 64).remainder(251).to(torch.uint8)
    crops = Crops({"crop": CropKind(20, (16, 24))})
    for crop in crops(image, structure_weights(image), _generator())["crop"]:
        row = crop[0, 0].tolist()
        whole = [torch.rot90(other, turns, (0, 1)) for other in (image[0], image[0].flip(0)) for turns in range(4)]
        assert any(row == line[c : c + 24].tolist() for turned in whole for line in turned for c in range(41))


def test_light_keeps_the_range_and_no_light_changes_nothing() -> None:
    images = torch.rand(4, 2, 16, 16).clamp_min(1e-3)
    lit = Light(gain=1, gamma=1)(images, _generator())
    assert lit.shape == images.shape
    assert lit.min() >= 0
    assert lit.max() <= 1
    torch.testing.assert_close(Light(gain=0, gamma=0)(images, _generator()), images)


def test_the_dataset_repeats_by_epoch_and_memory_does_not_matter(pictures: Files) -> None:
    def make(memory_mb: float) -> CropDataset:
        crops = Crops({"crop": CropKind(1, (16, 24))})
        return CropDataset(pictures, size=(48, 64), channels=3, crops=crops, crops_per_image=2, memory_mb=memory_mb)

    kept, read = make(100), make(0)
    assert len(kept) == 12
    first = [kept[index]["crop"] for index in range(12)]
    assert all(torch.equal(a, read[index]["crop"]) for index, a in enumerate(first))
    assert any(not torch.equal(a, kept[12 + index]["crop"]) for index, a in enumerate(first))


def test_without_a_size_crops_are_pieces_of_the_file(pictures: Files) -> None:
    crops = Crops({"crop": CropKind(3, (16, 24))}, symmetries=False)
    data = CropDataset(pictures, size=None, channels=3, crops=crops, memory_mb=2.5 * 3 * 60 * 70 / 1e6)
    for index, (path,) in enumerate(pictures):
        image = torch.from_numpy(np.array(Image.open(path))).movedim(-1, 0)  # [3, 60, 70]
        pieces = image.unfold(1, 16, 1).unfold(2, 24, 1)  # [3, 45, 47, 16, 24]
        for crop in data[index]["crop"]:
            assert (pieces == crop[:, None, None]).flatten(3).all(-1).all(0).any()
    assert len(data._memory) == 2  # as many as the memory holds


def test_another_number_of_planes_raises(pictures: Files) -> None:
    data = CropDataset(pictures, size=(48, 64), channels=4, crops=Crops({"crop": CropKind(1, (16, 16))}))
    with pytest.raises(DatasetError, match="has 3 planes, but the encoder takes in_channels=4"):
        data[0]


def test_loading_workers_see_the_epoch_and_decode_once(pictures: Files) -> None:
    loaders = []
    for workers in (0, 1):
        data = CropDataset(pictures, size=(48, 64), channels=3, crops=Crops({"crop": CropKind(1, (16, 16))}))
        parts = {"rank": 0, "world_size": 1, "pin_memory": False}
        loaders.append(crop_loader(data, batch_size=2, num_workers=workers, **parts))  # type: ignore[arg-type]
    for epoch in (0, 1):
        batches = []
        for loader in loaders:
            loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
            batches.append([batch["crop"] for batch in loader])
        assert len(batches[0]) == 3
        assert all(torch.equal(a, b) for a, b in zip(*batches, strict=True))
        for (path,) in pictures:
            path.unlink(missing_ok=True)  # the second epoch has no file to read
