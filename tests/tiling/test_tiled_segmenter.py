# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""`AOISSLSegmenter` with tiles: it learns from them, answers at the picture's size, and its export says the same."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anomalib.engine import Engine
from PIL import Image
from tiled_models import CLASSES, TILING, array_of, drawn, predicted

from anomalib_aoissl import AOISSLSegmenter, SegmentationFolder, SegmentationOpenVINOInferencer


@pytest.fixture(scope="module")
def trained(short_fits: None, tiny_encoder: dict, tmp_path_factory: pytest.TempPathFactory) -> tuple:
    """Return a model after four steps on two pictures of two sizes, and its test results."""
    root = tmp_path_factory.mktemp("pictures")
    (root / "classes.txt").write_text("\n".join(CLASSES))
    for index, size in enumerate([(80, 112), (70, 150), (100, 90)]):
        pictures, masks = drawn(1, size, seed=30 + index)
        split = root / ("train" if index < 2 else "test")
        for kind, array in (("images", array_of(pictures[0])), ("masks", masks[0].numpy())):
            (split / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(split / kind / f"{index}.png")
    encoder = {**tiny_encoder, "pretrained": False}
    model = AOISSLSegmenter(encoder=encoder, tiling=TILING, training={"select": "last"}, visualizer=False)
    quiet = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    engine = Engine(default_root_dir=root / "run", max_steps=4, limit_val_batches=0, **quiet)
    data = SegmentationFolder(root, num_workers=0)
    shown: list[dict] = []
    start = model.training_step

    def noted(*args: Any, **kwargs: Any) -> Any:
        shown.append({Path(name).name: len(makers) for name, makers in model.examples.makers.items()})
        return start(*args, **kwargs)

    model.training_step = noted
    (results,) = engine.train(model, datamodule=data)
    return model.eval(), results, shown[0]


def test_the_decoder_learns_from_tiles_of_each_picture(trained: tuple) -> None:
    _, results, makers = trained
    assert makers.keys() == {"0.png", "1.png"}
    assert all(count % 4 == 0 for count in makers.values())  # views of four tiles and of six
    assert sum(makers.values()) >= len(TILING.grid((80, 112))) + len(TILING.grid((70, 150)))
    assert results["mean_iou"] > 0.5


@pytest.fixture(scope="module")
def xml(trained: tuple, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = trained[0].to_openvino(tmp_path_factory.mktemp("tiled"))
    return path


def test_the_engines_prediction_is_that_of_the_line(trained: tuple, xml: Path, tmp_path: Path) -> None:
    """Of files of two sizes, one of them smaller than a tile."""
    inferencer, model = SegmentationOpenVINOInferencer(xml), copy.copy(trained[0])
    for path, batch in predicted(model, [(131, 170), (30, 50)], tmp_path):
        result, mask = inferencer.predict(path), batch.pred_mask[0].numpy()
        assert mask.shape == result.class_map.shape
        assert (mask == result.class_map).mean() >= 0.999
        assert len(np.unique(mask)) == 3
        np.testing.assert_allclose(batch.anomaly_map[0].numpy(), result.novelty, atol=1e-3)
        assert float(batch.pred_score[0]) == pytest.approx(result.score, abs=1e-3)


def test_the_exported_model_says_the_same(trained: tuple, xml: Path) -> None:
    model = trained[0]
    inferencer = SegmentationOpenVINOInferencer(xml)
    assert inferencer.tiling == TILING
    pictures, masks = drawn(1, (131, 170), seed=50)
    expected = model(pictures)
    result = inferencer.predict(array_of(pictures[0]))
    assert expected.pred_mask.shape == (1, 1, 131, 170)
    assert (result.class_map == expected.pred_mask[0, 0].numpy()).mean() >= 0.999
    np.testing.assert_allclose(result.novelty, expected.anomaly_map[0, 0].numpy(), atol=1e-3)
    assert result.score == pytest.approx(float(expected.pred_score[0]), abs=1e-3)
    assert result.uncertainty is None
    assert float((expected.pred_mask[0, 0] == masks[0]).float().mean()) > 0.8
