# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""`WireBond`: drawn once, split by unit or by device, as the folder reads it."""

from pathlib import Path

import pytest
import torch

from anomalib_aoissl.data.errors import DatasetError
from anomalib_aoissl.wirebond.datamodule import WireBond
from anomalib_aoissl.wirebond.drawing import draw

DEVICES = ["sot23_copper", "soic8_gold"]


def make_set(root: Path, **arguments: object) -> WireBond:
    defaults = {"devices": DEVICES, "images_per_device": 3, "image_size": (64, 64), "num_workers": 0}
    data = WireBond(root, **{**defaults, **arguments})
    data.setup()
    return data


def test_items_are_the_generators_drawings(tmp_path: Path) -> None:
    data = make_set(tmp_path, test_devices=["sot23_copper"], val_ratio=0.0)
    assert set(data.train_data.samples.device_name) == {"soic8_gold"}
    assert set(data.test_data.samples.device_name) == {"sot23_copper"}
    drawing = draw("sot23_copper", seed=0, unit=0, size=(64, 64))
    item = data.test_data[0]
    torch.testing.assert_close(item.image[0], torch.from_numpy(drawing.bright_field) / 255)
    torch.testing.assert_close(item.image[1], torch.from_numpy(drawing.dark_field) / 255)
    assert torch.equal(item.gt_mask.as_subclass(torch.Tensor), torch.from_numpy(drawing.mask))


def test_default_split_tests_other_units_of_the_same_devices(tmp_path: Path) -> None:
    data = make_set(tmp_path, images_per_device=6)
    parts = [data.train_data, data.val_data, data.test_data]
    assert [len(part) for part in parts] == [4, 2, 6]
    assert all(set(part.samples.device_name) == set(DEVICES) for part in parts)


def test_files_are_drawn_once(tmp_path: Path) -> None:
    data = make_set(tmp_path)
    times = {path: path.stat().st_mtime_ns for path in data.root.rglob("*.png")}
    assert len(times) == 2 * 3 * 3
    again = make_set(tmp_path, shots=1)
    assert {path: path.stat().st_mtime_ns for path in again.root.rglob("*.png")} == times


def test_other_settings_go_to_another_folder(tmp_path: Path) -> None:
    roots = {
        make_set(tmp_path, **changed).root
        for changed in ({}, {"seed": 1}, {"lot": 1}, {"difficulty": 0.9}, {"devices": DEVICES[:1]})
    }
    assert len(roots) == 5


def test_an_unknown_device_raises_before_drawing(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"'soic8_golf' does not exist. Did you mean 'soic8_gold'\?"):
        make_set(tmp_path, devices=["soic8_golf"])
    assert not list(tmp_path.rglob("*.png"))
