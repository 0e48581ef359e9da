# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""An exported model gives the explanation that torch gives, and the command writes it."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from anomalib_aoissl import SegmentationOpenVINOInferencer
from anomalib_aoissl.bank.content import BankArrays
from anomalib_aoissl.bank.explaining import voting_neighbours
from anomalib_aoissl.cli.dispatching import dispatch


def region() -> np.ndarray:
    """Return the region of `make_models` in a picture of 40x70 px: what its rows and columns look at."""
    where = np.zeros((40, 70), dtype=bool)
    rows, columns = ((np.arange(8, 20) + 0.5) * 40 / 32).astype(int), ((np.arange(10, 30) + 0.5) * 70 / 48).astype(int)
    where[np.ix_(rows, columns)] = True
    return where


def test_the_explanation_is_that_of_torch(
    head: SegmentationOpenVINOInferencer, models: Path, arrays: dict[str, np.ndarray]
) -> None:
    expected = json.loads((models / "explained.json").read_text())["region"]
    found = head.explain(arrays["pictures"][3], region())
    assert (list(found.box), found.pixels) == (expected["box"], expected["pixels"])
    assert found.tally == pytest.approx(expected["tally"], abs=1e-4)
    assert found.predicted == pytest.approx(expected["predicted"], abs=0.01)
    for name in ("novelty", "uncertainty", "abstained", "differs"):
        assert getattr(found, name) == pytest.approx(expected[name], abs=0.01), name
    weights = {vote["entry"]: vote["weight"] for vote in expected["votes"]}
    assert {vote.entry: vote.weight for vote in found.votes} == pytest.approx(weights, abs=1e-4)
    first, wanted = found.votes[0], expected["votes"][0]
    for name in ("image", "device", "label", "patches", "entry"):
        assert getattr(first, name) == wanted[name], name
    assert list(first.box) == wanted["box"]


def test_a_learnt_pixel_is_explained_by_itself(
    bank: SegmentationOpenVINOInferencer, arrays: dict[str, np.ndarray]
) -> None:
    nearest = max(bank.explain(arrays["pictures"][1], (20, 35)).votes, key=lambda vote: vote.similarity)
    assert (nearest.image, nearest.box) == ("1", (16, 24, 8, 8))
    assert nearest.similarity == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("aggregation", ["attention", "similarity"])
def test_neighbours_are_those_of_a_loop(aggregation: str) -> None:
    random = np.random.default_rng(0)
    entries, queries = random.normal(size=(2, 300, 6)).astype(np.float32)
    entries /= np.linalg.norm(entries, axis=1, keepdims=True)
    counts = random.integers(1, 9, 300)
    found = voting_neighbours(
        BankArrays({"embeddings": entries, "labels": entries, "counts": counts}), queries, 5, aggregation, 0.1
    )
    for index in (0, 123, 299):
        similarity = [float(entry @ queries[index] / np.linalg.norm(queries[index])) for entry in entries]
        best = sorted(range(300), key=lambda i: -similarity[i])[:5]
        assert found.entries[index].tolist() == best
        left, weights = 5.0, []
        for i in best:
            votes = counts[i] ** 0.5
            if aggregation == "attention":
                weights.append(np.exp(similarity[i] / 0.1) * votes)
            else:
                weights.append(max(similarity[i], 1e-6) * min(votes, max(left, 0)))
                left -= votes
        np.testing.assert_allclose(
            found.weights[index] / found.weights[index].sum(), np.divide(weights, sum(weights)), atol=1e-5
        )


def test_the_command_writes_picture_and_data(
    models: Path, arrays: dict[str, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, output, data = tmp_path / "i.png", tmp_path / "e.png", tmp_path / "e.json"
    cv2.imwrite(str(image), arrays["pictures"][3][..., ::-1])
    given = ["explain", "--model", str(models / "head.xml"), "--image", str(image), "--box", "10,8,30,20"]
    assert dispatch([*given, "--output", str(output), "--data", str(data)]) == 0
    with Image.open(output) as picture:
        assert picture.width > 800
    assert json.loads(data.read_text())["votes"]
    assert "of the votes: " in capsys.readouterr().out
    assert dispatch([*given, "--output", str(models / "head.xml"), "--overwrite"]) == 2
    assert "is a file that the command reads" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ((40, 0), r"region=\(40, 0\) lies outside of the image of 40x70 px"),
        (np.zeros((40, 70), bool), r"got \(40, 70\) with 0 pixels"),
        (np.ones((4, 4), bool), r"mask of the image's 40x70 px \(height x width\).*got \(4, 4\) with 16 pixels"),
    ],
)
def test_regions_that_are_none_are_errors(
    bank: SegmentationOpenVINOInferencer, arrays: dict[str, np.ndarray], where: object, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        bank.explain(arrays["pictures"][0], where)  # type: ignore[arg-type]
