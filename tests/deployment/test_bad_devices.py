# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Devices and settings that OpenVINO has not, and models that are not whole: one error that says what to do."""

import shutil
from pathlib import Path

import pytest

from anomalib_aoissl import SegmentationOpenVINOInferencer


@pytest.mark.parametrize("device", ["TPU", "TPU.1", "AUTO:TPU,CPU", "cpu", "", "HETERO:CPU,TPU(2)"])
def test_a_device_that_is_not_there_is_named_with_those_that_are(models: Path, device: str) -> None:
    message = rf"device='{device}'".replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(ValueError, match=message + r": OpenVINO has no such device on this machine, only \[.*'CPU'"):
        SegmentationOpenVINOInferencer(models / "bank.xml", device=device)


@pytest.mark.parametrize("device", ["CPU", "AUTO", "AUTO:CPU"])
def test_devices_that_are_there_are_taken(models: Path, device: str) -> None:
    assert SegmentationOpenVINOInferencer(models / "bank.xml", device=device).class_names == (
        "background",
        "wire",
        "ball",
    )


@pytest.mark.parametrize("config", [{"FOO": 1}, {"PERFORMANCE_HINT": "FAST"}, {"INFERENCE_PRECISION_HINT": "i3"}])
def test_settings_that_openvino_does_not_take_are_named(models: Path, config: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=rf"cannot use device='CPU' with config=.*{next(iter(config))}.*Mend config="):
        SegmentationOpenVINOInferencer(models / "bank.xml", config=config)


def test_a_model_without_its_weights_says_which_file_is_missing(models: Path, tmp_path: Path) -> None:
    shutil.copy(models / "bank.xml", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"bank\.bin: the weights of bank\.xml are not there.*beside it"):
        SegmentationOpenVINOInferencer(tmp_path / "bank.xml")


def test_weights_of_another_model_are_noticed(models: Path, tmp_path: Path) -> None:
    shutil.copy(models / "bank.xml", tmp_path)
    shutil.copy(models / "head.bin", tmp_path / "bank.bin")
    with pytest.raises(ValueError, match=r"the \.xml or the \.bin was changed, or they are not of one model"):
        SegmentationOpenVINOInferencer(tmp_path / "bank.xml")
