# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Edits on the line: what is learnt there is what torch learns, and what is saved is what was learnt."""

from pathlib import Path

import numpy as np
import pytest

from anomalib_aoissl import SegmentationOpenVINOInferencer
from anomalib_aoissl.cli.dispatching import dispatch


def planes(arrays: dict[str, np.ndarray]) -> np.ndarray:
    return arrays["pictures"].transpose(0, 3, 1, 2).astype(np.float32) / 255


def test_a_bank_that_learns_a_picture_is_the_one_that_torch_filled_with_it(
    bank: SegmentationOpenVINOInferencer, arrays: dict[str, np.ndarray], tmp_path: Path
) -> None:
    assert bank.adapt(arrays["pictures"][3], arrays["masks"][3], device="old", name="3") > 0
    saved = SegmentationOpenVINOInferencer(bank.save(tmp_path / "taught.xml"))
    for inferencer in (bank, saved):
        answer = inferencer._compiled(planes(arrays))
        assert (answer["pred_mask"] == arrays["taught_mask"]).mean() >= 0.999
        np.testing.assert_allclose(answer["anomaly_map"], arrays["taught_novelty"], atol=1e-5)
    assert not np.allclose(arrays["taught_novelty"], arrays["bank_novelty"], atol=1e-3)


def test_what_is_removed_again_leaves_the_bank_as_it_was(
    bank: SegmentationOpenVINOInferencer, arrays: dict[str, np.ndarray]
) -> None:
    before = bank.bank["entries"]
    added = bank.adapt(arrays["pictures"][3], arrays["masks"][3], device="new", name="3")
    assert bank.bank["entries"] == before + added
    assert bank.remove(device="new") == added
    answer = bank._compiled(planes(arrays))
    np.testing.assert_array_equal(answer["pred_mask"], bank._compiled(planes(arrays))["pred_mask"])
    np.testing.assert_allclose(answer["anomaly_map"], arrays["bank_novelty"], atol=1e-5)


def test_arrays_without_a_name_get_names_that_are_free(
    bank: SegmentationOpenVINOInferencer, arrays: dict[str, np.ndarray]
) -> None:
    for index in (0, 1):
        bank.adapt(arrays["pictures"][index], arrays["masks"][index], device="d", refit=False)
    bank.remove(image="d, learnt 3")
    bank.adapt(arrays["pictures"][2], arrays["masks"][2], device="d", refit=False)
    assert [*bank.bank["entries_of_image"]][3:] == ["d, learnt 4", "d, learnt 5"]


def test_a_head_learns_a_picture(head: SegmentationOpenVINOInferencer, arrays: dict[str, np.ndarray]) -> None:
    picture, mask = arrays["pictures"][3], arrays["masks"][3]
    flipped = np.where(mask == 255, 255, 2 - mask).astype(np.uint8)  # it has learnt the contrary
    before = (head.predict(picture).class_map == flipped)[mask != 255].mean()
    head.remove(device="old", image="0")
    for index in range(3):
        head.adapt(picture, flipped, device="new", name=f"n{index}")
    after = (head.predict(picture).class_map == flipped)[mask != 255].mean()
    assert after > before + 0.1


def test_bank_files_travel_between_lines(
    bank: SegmentationOpenVINOInferencer, head: SegmentationOpenVINOInferencer, tmp_path: Path
) -> None:
    file, rows = head.save_bank(tmp_path / "b.safetensors"), bank.bank["entries"]
    bank.extend_bank(file)
    assert bank.bank["entries"] == rows + head.bank["entries"]
    bank.replace_bank(file, bank_size=20)
    assert bank.bank["entries"] == 20


def test_the_bank_commands_edit_an_exported_model(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, output, file = str(models / "bank.xml"), str(tmp_path / "o.xml"), str(tmp_path / "b.safetensors")
    assert dispatch(["bank", "remove", model, "--image", "0", "--output", output]) == 0
    assert dispatch(["bank", "condense", output, "9", "--in_place"]) == 0
    assert dispatch(["bank", "export", output, file]) == 0
    assert dispatch(["bank", "merge", output, file, "--in_place"]) == 0
    capsys.readouterr()
    assert dispatch(["bank", "describe", output]) == 0
    assert "18 entries" in capsys.readouterr().out
