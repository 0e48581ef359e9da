# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Edits, saves and restarts in any order give what the same edits give in memory, without any save."""

from pathlib import Path

import numpy as np
import pytest
from editable_models import array_of, labelled
from small_exports import bank, exported, onnx

from anomalib_aoissl import SegmentationOpenVINOInferencer
from anomalib_aoissl.bank.storage import read_bank, write_bank
from anomalib_aoissl.cli.bank import main
from anomalib_aoissl.deployment.graph.bank import bank_of, part_model

pytest.importorskip("openvino")

NAMES = ["background", "wire", "ball"]


class Edits:
    """A sequence of random edits, the same for the same seed.

    Args:
        seed: Of the sequence.
        bank_path: A bank file that some edits take in.
    """

    def __init__(self, seed: int, bank_path: Path) -> None:
        self.random = np.random.default_rng(seed)
        self.bank_path = bank_path
        self.number = 0

    def edit(self, inferencer: SegmentationOpenVINOInferencer) -> None:
        """Do the next edit."""
        self.number += 1
        kind, draw = int(self.random.integers(5)), int(self.random.integers(1000))
        images = sorted(inferencer.bank["entries_of_image"])
        if kind == 0 and len(images) > 2:
            inferencer.remove(image=images[draw % len(images)])
        elif kind == 1:
            inferencer.extend_bank(self.bank_path, bank_size=60)
        elif kind == 2:
            inferencer.replace_bank(self.bank_path)
        else:
            pictures, masks = labelled(1, seed=draw)
            names = [*NAMES, f"new {self.number % 2}"] if kind == 3 else None
            mask = masks[0].numpy()
            mask[20:] = 3 if names else 1
            learnt = {"device": f"d{draw % 3}", "name": f"n{self.number}", "class_names": names}
            inferencer.adapt(array_of(pictures[0]), mask, **learnt)  # type: ignore[arg-type]


def answer(inferencer: SegmentationOpenVINOInferencer) -> tuple[np.ndarray, np.ndarray]:
    result = inferencer.predict(array_of(labelled(1, seed=77)[0][0]))
    return result.class_map, result.novelty


def nodes(inferencer: SegmentationOpenVINOInferencer) -> int:
    return len(inferencer._model.get_ordered_ops())


@pytest.mark.parametrize("seed", range(3))
def test_restarts_between_random_edits_change_nothing(seed: int, tmp_path: Path) -> None:
    path = write_bank(bank(), tmp_path / "bank.safetensors")
    kept = SegmentationOpenVINOInferencer(exported())
    restarted = SegmentationOpenVINOInferencer(exported() if seed else onnx())
    first, second, random = Edits(seed, path), Edits(seed, path), np.random.default_rng(seed)
    for _ in range(6):
        first.edit(kept)
        second.edit(restarted)
        for _ in range(int(random.integers(3))):
            saved = restarted.save(tmp_path / "model.xml")
            if random.integers(2):
                restarted = SegmentationOpenVINOInferencer(saved)
        assert restarted.class_names == kept.class_names
        for name, array in bank_of(kept._model).entries.items():
            np.testing.assert_allclose(bank_of(restarted._model).entries[name], array, atol=1e-6, err_msg=name)
    (mask, novelty), (expected, expected_novelty) = answer(restarted), answer(kept)
    assert (mask == expected).mean() >= 0.999
    np.testing.assert_allclose(novelty, expected_novelty, atol=1e-5)


def test_a_model_does_not_grow_with_its_edits(tmp_path: Path) -> None:
    path = write_bank(bank(), tmp_path / "bank.safetensors")
    inferencer = SegmentationOpenVINOInferencer(exported())
    inferencer.replace_bank(path)
    first, sizes = nodes(inferencer), set()
    for _ in range(4):
        inferencer.replace_bank(path)
        inferencer = SegmentationOpenVINOInferencer(inferencer.save(tmp_path / "model.xml"))
        sizes.add((tmp_path / "model.bin").stat().st_size)
    assert nodes(inferencer) == first
    assert len(sizes) == 1
    part_model(inferencer._model, ["patch_embeddings"])


def test_condensing_a_model_twice_is_condensing_its_bank_twice(tmp_path: Path) -> None:
    saved = SegmentationOpenVINOInferencer(exported()).save(tmp_path / "model.xml")
    path = SegmentationOpenVINOInferencer(exported()).save_bank(tmp_path / "bank.safetensors")
    for size in ("40", "25"):
        for file in (saved, path):
            assert main(["condense", str(file), size, "--in_place"]) == 0
    for file in (saved, path):
        assert main(["remove", str(file), "--image", "1-0", "--in_place"]) == 0
    expected = read_bank(path)
    for name, array in bank_of(SegmentationOpenVINOInferencer(saved)._model).entries.items():
        np.testing.assert_allclose(array, expected.entries[name], atol=1e-6)
