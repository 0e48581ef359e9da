# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What a study measures: scores against other libraries, and runs of real models on a tiny set, start to table."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import jaccard_score
from torchmetrics.classification import MulticlassJaccardIndex

from benchmarks.study.plan import plan
from benchmarks.study.scoring import score
from benchmarks.study.sharing import Board
from benchmarks.study.working import work

NAMES = ("background", "wire", "ball", "never")


def test_scores_against_scikit_learn_and_torchmetrics() -> None:
    generator = np.random.default_rng(0)
    truth = [generator.integers(0, 3, (20, 30)).astype(np.uint8) for _ in range(3)]
    predicted = [np.where(generator.random(t.shape) < 0.7, t, generator.integers(0, 3, t.shape)) for t in truth]
    truth[0][:5] = 255
    found = score(predicted, truth, NAMES)
    flat, guess = (np.concatenate([m.ravel() for m in masks]) for masks in (truth, predicted))
    each = jaccard_score(flat[flat != 255], guess[flat != 255], average=None)
    assert found["class_iou"] == pytest.approx(dict(zip(NAMES, each, strict=False)), abs=1e-5)
    assert found["mean_iou"] == pytest.approx(each.mean())  # the class that is nowhere does not count
    metric = MulticlassJaccardIndex(3, ignore_index=255)
    single = [float(metric(torch.tensor(p), torch.tensor(t))) for p, t in zip(predicted, truth, strict=True)]
    assert found["image_iou"] == pytest.approx(single, abs=1e-4)


def test_novelty_by_counting_pairs() -> None:
    pytest.importorskip("skimage")
    from benchmarks.study.methods.novelty import scores_of

    generator = np.random.default_rng(1)
    kinds = ["", "", "", "crack", "crack", "particle"]
    scores = generator.random(6).tolist()
    masks = [np.zeros((4, 5), bool) if not kind else generator.random((4, 5)) < 0.3 for kind in kinds]
    maps = [generator.random((4, 5)) + mask for mask in masks]
    found = scores_of(maps, scores, masks, kinds)

    def wins(chosen: list[str]) -> float:
        pairs = [(scores[i], scores[j]) for i in range(6) for j in range(6) if kinds[i] in chosen and not kinds[j]]
        return float(np.mean([high > low for high, low in pairs]))

    assert found["auroc"] == pytest.approx(wins(["crack", "particle"]))
    assert found["defects"] == pytest.approx({"crack": wins(["crack"]), "particle": wins(["particle"])}, abs=1e-5)
    assert found["pixel_ap"] == pytest.approx(1.0)  # each defective pixel is above each other one


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Six pictures of 64x64 px: a bright square on dark ground, in a corner of its own."""
    root = tmp_path / "data" / "squares"
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    generator = np.random.default_rng(2)
    for number in range(6):
        mask = np.zeros((64, 64), np.uint8)
        top, left = generator.integers(4, 36, 2)
        mask[top : top + 24, left : left + 24] = 1
        grey = (40 + 150 * mask + generator.normal(0, 8, mask.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(np.repeat(grey[..., None], 3, axis=2)).save(root / "images" / f"{number}.png")
        Image.fromarray(mask).save(root / "masks" / f"{number}.png")
    (root / "classes.txt").write_text("background\nsquare\n", encoding="utf-8")
    return tmp_path


def test_models_and_peers_run_from_pictures_to_the_table(data: Path) -> None:
    for package in ("segmentation_models_pytorch", "skimage", "sklearn"):
        pytest.importorskip(package)
    from benchmarks.study.running import runner

    squares = {"class_path": "SegmentationFolder", "init_args": {"root": "squares", "test_ratio": 0.34}}
    config = {
        "sets": {"squares": {**squares, "size": [64, 64], "test_images": 2}},
        "weights": {"shipped": {}},
        "models": {
            "vote": {"kind": "retrieval", "arguments": {"head": None}},
            "probe": {"kind": "linear probe", "peer": True},
            "forest": {"kind": "forest", "peer": True},
            "U-Net": {"kind": "network", "architecture": "unet", "peer": True},
        },
        "slices": {
            "all": {"sets": ["squares"], "models": ["vote", "probe", "forest"], "labels": [2], "seeds": [0]},
            "timed": {"sets": ["squares"], "models": ["U-Net"], "labels": [2], "seeds": [0], "budgets": [1.0]},
        },
    }
    slices: Any = config["slices"]
    for axes in slices.values():
        axes["weights"] = ["shipped"]
    board = Board(data / "study")
    run = runner(Path("x.yaml"), {"data": data / "data", "drawn": data / "drawn"})
    assert work(plan(config), board, run) == 0, [p.read_text() for p in (board.folder / "failures").iterdir()]
    with (board.folder / "study.csv").open(encoding="utf-8") as file:
        rows = {row["model"]: row for row in csv.DictReader(file)}
    assert {row["peer"] for name, row in rows.items() if name != "vote"} == {"True"}
    for name in ("vote", "probe", "forest"):
        assert float(rows[name]["mean_iou"]) > 0.7, name
    assert float(rows["U-Net"]["fit_seconds"]) == pytest.approx(1.0, abs=1.0)
    for row in rows.values():
        tested, own = (board.folder / part for part in row["pictures"].split())
        truth = [np.asarray(Image.open(tested / f"{n}_truth.png")) for n in range(2)]
        masks = [np.asarray(Image.open(own / f"{n}.png")) for n in range(2)]
        again = score(masks, truth, ("background", "square"))
        assert float(row["mean_iou"]) == pytest.approx(again["mean_iou"], abs=1e-5)
        assert json.loads(row["class_iou"]) == pytest.approx(again["class_iou"], abs=1e-5)
        assert row["command"].endswith(f"--only {row['job']}")
        assert row["commit"]
