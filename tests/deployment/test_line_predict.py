# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Predictions on the line are those of torch, from any file that a camera writes, and nothing there imports torch."""

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

import anomalib_aoissl
from anomalib_aoissl import SegmentationOpenVINOInferencer
from anomalib_aoissl.bank.own_novelty import own_novelty
from anomalib_aoissl.deployment.graph.bank import bank_of

ON_THE_LINE = "AOISSL_LINE_MODELS" in os.environ

ALL_OF_IT = """
import sys
class Missing:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in ("torch", "torchvision", "lightning", "anomalib", "timm"):
            raise ModuleNotFoundError(name)
if {blocked}:
    sys.meta_path.insert(0, Missing())
import numpy as np
from anomalib_aoissl import SegmentationOpenVINOInferencer
from anomalib_aoissl.cli.dispatching import dispatch
from anomalib_aoissl.pixel_head.learning import stages
stages.REFIT_STEPS = 20
arrays, folder = np.load({models!r} + "/arrays.npz"), {folder!r}
inferencer = SegmentationOpenVINOInferencer({models!r} + "/head.xml")
picture, mask = arrays["pictures"][3], arrays["masks"][3]
inferencer.predict(picture).overlay()
inferencer.adapt(picture, mask, device="new", name="n")
inferencer.explain(picture, (3, 4))
inferencer.remove(image="n")
inferencer.save_bank(folder + "/b.safetensors")
inferencer.replace_bank(folder + "/b.safetensors")
saved = str(inferencer.save(folder + "/m.xml"))
list(inferencer.predict_many([picture] * 3))
assert dispatch(["bank", "describe", saved]) == 0
assert dispatch(["doctor", saved, "--rounds", "1"]) == 0
print(sorted(name for name in ("torch", "lightning", "anomalib", "timm") if sys.modules.get(name)))
"""


@pytest.mark.parametrize("name", ["head", "bank"])
def test_masks_novelty_and_uncertainty_are_those_of_torch(
    models: Path, arrays: dict[str, np.ndarray], name: str
) -> None:
    inferencer = SegmentationOpenVINOInferencer(models / f"{name}.xml")
    answer = inferencer._compiled(arrays["pictures"].transpose(0, 3, 1, 2).astype(np.float32) / 255)
    assert (answer["pred_mask"] == arrays[f"{name}_mask"]).mean() >= 0.999
    np.testing.assert_allclose(answer["anomaly_map"], arrays[f"{name}_novelty"], atol=1e-5)
    uncertainty = inferencer._loaded.abstention.uncertainty(answer["winning_probability"], answer["anomaly_map"][:, 0])
    np.testing.assert_allclose(uncertainty, arrays[f"{name}_uncertainty"][:, 0], atol=1e-4)


def test_a_result_has_the_pictures_size_and_is_written(
    head: SegmentationOpenVINOInferencer, arrays: dict[str, np.ndarray], tmp_path: Path
) -> None:
    result = head.predict(arrays["pictures"][0])
    assert result.class_map.shape == result.novelty.shape == result.abstained.shape == (40, 70)
    assert sum(result.class_shares().values()) == pytest.approx(1)
    result.save_mask(tmp_path / "mask.png")
    with Image.open(tmp_path / "mask.png") as written:
        np.testing.assert_array_equal(np.array(written), result.class_map)
    assert result.overlay().width == 70
    batch = head.predict_batch(list(arrays["pictures"]))
    np.testing.assert_array_equal(batch[0].class_map, result.class_map)


@pytest.mark.parametrize("compression", ["lzw", "zstd", "deflate", "packbits", None])
def test_tiff_files_of_all_compressions_are_read(
    head: SegmentationOpenVINOInferencer, arrays: dict[str, np.ndarray], tmp_path: Path, compression: str | None
) -> None:
    pytest.importorskip("imagecodecs")
    picture = arrays["pictures"][1]
    tifffile.imwrite(tmp_path / "p.tif", picture, photometric="rgb", compression=compression)
    cv2.imwrite(str(tmp_path / "p.png"), picture[..., ::-1])
    expected = head.predict(picture).novelty
    for file in ("p.tif", "p.png"):
        np.testing.assert_array_equal(head.predict(tmp_path / file).novelty, expected)


def test_all_that_the_line_does_goes_without_torch(models: Path, tmp_path: Path) -> None:
    script = ALL_OF_IT.format(models=str(models), folder=str(tmp_path), blocked=not ON_THE_LINE)
    environment = {**os.environ, "PYTHONPATH": str(Path(anomalib_aoissl.__file__).parent.parent)}
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "[]"
    assert "Traceback" not in result.stderr


@pytest.mark.skipif(not ON_THE_LINE, reason="this environment has torch")
def test_the_line_has_no_torch_and_says_what_is_elsewhere(tmp_path: Path) -> None:
    from importlib.util import find_spec

    assert [name for name in ("torch", "lightning", "anomalib", "timm") if find_spec(name)] == []
    assert "site-packages" in Path(anomalib_aoissl.__file__).parts
    with pytest.raises(ImportError, match=r"AOISSLRetrieval: this machine has anomalib-aoissl-line"):
        _ = anomalib_aoissl.AOISSLRetrieval

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "anomalib_aoissl", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    report = run()
    assert (report.returncode, report.stderr) == (0, "")
    assert report.stdout.startswith(f"anomalib-aoissl-line {anomalib_aoissl.__version__}, Python 3")
    rejected = run("label-next", "--count", "3")
    assert rejected.returncode == 2
    assert "label-next: this machine has anomalib-aoissl-line" in rejected.stderr


def test_a_picture_unlike_the_labelled_ones_is_doubted(
    head: SegmentationOpenVINOInferencer, arrays: dict[str, np.ndarray], caplog: pytest.LogCaptureFixture
) -> None:
    good, black = arrays["pictures"][0], np.zeros_like(arrays["pictures"][0])
    head.threshold = 0.99
    results = [head.predict(good), head.predict(black), *head.predict_batch([good, black])]
    results += list(head.predict_many([good, black]))
    for result in results[::2]:
        assert not result.fault
        assert not result.abstained.all()
    for result in results[1::2]:
        assert result.fault == "underexposed (100% of the pixels are black, at most 0% of labelled pictures)"
        assert result.abstained.all()
    assert caplog.text.count("its mask may be wrong: underexposed") == 3


def test_a_picture_is_known_again_by_a_network_in_8_bits(
    head: SegmentationOpenVINOInferencer,
    arrays: dict[str, np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    exact, random = head._embeddings, np.random.default_rng(0)

    def coarse(planes: np.ndarray, *light: np.ndarray) -> np.ndarray:
        found = exact(planes, *light)
        found = found / np.linalg.norm(found, axis=1, keepdims=True)
        error = random.normal(size=found.shape)
        return (found + 0.3 * error / np.linalg.norm(error, axis=1, keepdims=True)).astype(np.float32)  # cosine 0.96

    monkeypatch.setattr(head, "_embeddings", coarse)
    head.adapt(arrays["pictures"][3], arrays["masks"][3], device="new", name="another", refit=False)
    assert "looks like" not in caplog.text
    head.adapt(arrays["pictures"][1], arrays["masks"][1], device="new", name="again", refit=False)
    assert "again looks like 1, which the bank has already" in caplog.text


def test_what_the_line_learns_is_no_fault_any_more(
    head: SegmentationOpenVINOInferencer,
    bank: SegmentationOpenVINOInferencer,
    arrays: dict[str, np.ndarray],
    tmp_path: Path,
) -> None:
    picture, mask = arrays["pictures"][3], arrays["masks"][3]
    grey = np.full_like(picture, 128)
    assert head.predict(grey).fault.startswith("dark or empty")
    head.adapt(grey, mask, device="old", name="grey", refit=False)
    assert not head.predict(grey).fault
    assert head.predict(np.zeros_like(grey)).fault  # still
    saved = SegmentationOpenVINOInferencer(head.save(tmp_path / "m.xml"))
    assert not saved.predict(grey).fault
    head.remove(image="grey", refit=False)
    assert head.predict(grey).fault.startswith("dark or empty")
    bank.adapt(picture, mask, device="new", name="of another line")
    head.extend_bank(bank.save_bank(tmp_path / "other.safetensors"))
    assert not head.predict(np.zeros_like(grey)).fault  # of the bank file's pictures it knows nothing


def test_a_picture_that_is_novel_all_over_is_doubted(
    bank: SegmentationOpenVINOInferencer, arrays: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = arrays["pictures"][3]
    assert not bank.predict(picture).fault
    known = bank._loaded.own_novelty
    assert known == pytest.approx(own_novelty(bank_of(bank._model)))
    monkeypatch.setattr("anomalib_aoissl.bank.own_novelty.NOVEL_ALL_OVER", 1e-6)
    result = bank.predict(picture)
    mean = arrays["bank_novelty"][3].mean()
    assert result.fault == (
        f"novel all over, as another product (mean novelty {mean:.2f}, at most {known:.2f} in labelled pictures)"
    )
    bank.adapt(picture, arrays["masks"][3], device="old", name="3", bank_size=30)
    assert bank._loaded.own_novelty == pytest.approx(own_novelty(bank_of(bank._model)))
    assert bank._loaded.own_novelty != known
