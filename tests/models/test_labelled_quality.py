# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Pictures that are unlike the labelled ones: prediction says so, and models bring along what they compare with."""

import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from anomalib.data import ImageBatch
from anomalib.engine import Engine
from PIL import Image

from anomalib_aoissl import AOISSLRetrieval, AOISSLSegmenter, SegmentationFolder
from anomalib_aoissl.bank.own_novelty import own_novelty
from anomalib_aoissl.data.quality.picture_quality import LabelledQuality, picture_quality
from anomalib_aoissl.retrieval.memory.checkpoint_bank import load_checkpoint, load_content, put_content

QUIET: dict[str, Any] = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
SIZE = (64, 96)
ITEM = "soic8_gold_00_000"

pytestmark = pytest.mark.usefixtures("short_fits")


def fitted(model: Any, folder: Path, data: Path, **trainer: Any) -> Engine:
    engine = Engine(default_root_dir=folder, limit_val_batches=0, **trainer, **QUIET)
    engine.fit(model, datamodule=SegmentationFolder(data, num_workers=0, val_ratio=0, test_ratio=0.25))
    return engine


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, drawn_folder: Path, tiny_encoder: dict) -> Any:
    """Return a trained model that abstains, its checkpoint, and a folder with a good and a black picture."""
    encoder = {**tiny_encoder, "pretrained": False}
    model = AOISSLRetrieval(encoder=encoder, image_size=SIZE, abstain=0.1, head=None)
    engine = fitted(model, tmp_path_factory.mktemp("run"), drawn_folder)
    pictures = tmp_path_factory.mktemp("pictures")
    for channel in ("ch0", "ch1"):
        picture = Image.open(drawn_folder / "images" / f"{ITEM}_{channel}.png")
        picture.save(pictures / f"good_{channel}.png")
        Image.fromarray(0 * np.asarray(picture)).save(pictures / f"black_{channel}.png")
    return SimpleNamespace(model=model, engine=engine, ckpt=Path(engine.best_model_path), pictures=pictures)


def test_training_looks_at_its_labelled_pictures(run: Any) -> None:
    dataset = run.engine.trainer.datamodule.train_data
    found = run.model.labelled_quality
    assert found.size == SIZE
    assert found.pictures == {item.image_path: picture_quality(item.image.numpy()) for item in dataset}


def test_prediction_says_which_picture_is_unlike_the_labelled_ones(
    run: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = AOISSLRetrieval.load_from_checkpoint(run.ckpt)
    engine = Engine(default_root_dir=tmp_path, **QUIET)
    with caplog.at_level(logging.WARNING):
        batches = engine.predict(model, data_path=run.pictures)
    items = {Path(item.image_path).stem: item for batch in batches for item in batch}
    assert items["good_ch0"].fault == ""
    assert items["black_ch0"].fault.startswith("underexposed (100% of the pixels are black")
    assert items["black_ch0"].abstained.all()
    assert not items["good_ch0"].abstained.all()
    assert "1 pictures are unlike the labelled ones, so that their masks may be wrong" in caplog.text
    assert f"{run.pictures / 'black_ch0.png'}: underexposed" in caplog.text


def test_prediction_says_which_picture_is_novel_all_over(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = AOISSLRetrieval.load_from_checkpoint(run.ckpt)
    known = model.own_novelty()
    assert known == own_novelty(load_content(run.ckpt))
    monkeypatch.setattr("anomalib_aoissl.bank.own_novelty.NOVEL_ALL_OVER", 1e-6)
    batches = Engine(default_root_dir=tmp_path, **QUIET).predict(model, data_path=run.pictures)
    assert model.visualizer.usual == known  # colours of novelty follow it
    for item in [item for batch in batches for item in batch]:
        mean = float(item.anomaly_map.mean())
        assert item.fault.endswith(f"(mean novelty {mean:.2f}, at most {known:.2f} in labelled pictures)")
        assert item.fault.startswith("underexposed" if "black" in item.image_path else "novel all over")
        assert item.abstained.all()


def test_pictures_that_anomalib_read_are_looked_at_too(run: Any, drawn_folder: Path) -> None:
    model = AOISSLRetrieval.load_from_checkpoint(run.ckpt).eval()
    paths = [str(run.pictures / f"{name}_ch0.png") for name in ("good", "black")]
    answer = model.predict_step(ImageBatch(image=torch.zeros(2, 3, *SIZE), image_path=paths), 0)
    assert [fault.partition(" (")[0] for fault in answer.fault] == ["", "underexposed"]
    assert [bool(abstained.all()) for abstained in answer.abstained] == [False, True]


def test_the_segmenter_looks_at_its_pictures_too(drawn_folder: Path, tmp_path: Path, tiny_encoder: dict) -> None:
    model = AOISSLSegmenter(encoder={**tiny_encoder, "pretrained": False}, image_size=SIZE, training={"select": "last"})
    engine = fitted(model, tmp_path, drawn_folder, max_steps=1)
    engine.trainer.save_checkpoint(tmp_path / "model.ckpt")
    again = AOISSLSegmenter.load_from_checkpoint(tmp_path / "model.ckpt")
    assert again.labelled_quality == model.labelled_quality
    assert again.export_metadata()["quality"] == model.labelled_quality.to_dict()


def test_a_learnt_picture_widens_what_is_known_and_a_bank_of_others_ends_it(run: Any, tmp_path: Path) -> None:
    model = AOISSLRetrieval.load_from_checkpoint(run.ckpt)
    before = model.labelled_quality
    soft = torch.full((1, 3, *SIZE), 0.5)
    model.add(soft, torch.zeros(1, *SIZE, dtype=torch.uint8), ["new"], ["even"])
    assert model.labelled_quality == before.with_picture("even", soft[0].numpy())
    assert model.labelled_quality.fault(soft[0].numpy()) == ""
    model.undo()
    assert model.labelled_quality == before
    model.add(soft, torch.zeros(1, *SIZE, dtype=torch.uint8), ["new"], ["even"])
    learnt = model.labelled_quality
    model.remove(image="even")
    assert model.labelled_quality == before
    model.undo()
    assert model.labelled_quality == learnt
    model.merge(load_content(run.ckpt))
    assert model.labelled_quality is None
    model.undo()
    assert model.labelled_quality == learnt


def test_a_checkpoint_with_images_of_another_bank_knows_no_more(run: Any) -> None:
    checkpoint, content = load_checkpoint(run.ckpt), load_content(run.ckpt)
    assert put_content(checkpoint, content)["anomalib_aoissl"]["quality"] == run.model.labelled_quality.to_dict()
    names = [*content.image_names[:-1], "another"]
    assert "quality" not in put_content(checkpoint, replace(content, image_names=names))["anomalib_aoissl"]
    assert checkpoint["anomalib_aoissl"]["quality"] is not None


def test_a_checkpoint_of_before_says_nothing(run: Any, tmp_path: Path) -> None:
    checkpoint = torch.load(run.ckpt, weights_only=True)
    del checkpoint["anomalib_aoissl"]["quality"]
    torch.save(checkpoint, tmp_path / "old.ckpt")
    model = AOISSLRetrieval.load_from_checkpoint(tmp_path / "old.ckpt")
    assert model.labelled_quality is None
    assert "quality" not in model.export_metadata()


def test_a_model_with_tiles_measures_pictures_at_their_own_size(
    drawn_folder: Path, tmp_path: Path, tiny_encoder: dict
) -> None:
    tiling = {"size": (32, 48), "overlap": 8}
    model = AOISSLRetrieval(encoder={**tiny_encoder, "pretrained": False}, tiling=tiling, head=None)
    fitted(model, tmp_path, drawn_folder)
    assert isinstance(model.labelled_quality, LabelledQuality)
    assert model.labelled_quality.size is None


def test_a_test_shows_novelty_beside_what_is_usual(run: Any, tmp_path: Path) -> None:
    model = AOISSLRetrieval.load_from_checkpoint(run.ckpt)
    Engine(default_root_dir=tmp_path, **QUIET).test(model, datamodule=run.engine.trainer.datamodule)
    assert model.visualizer.usual == run.model.own_novelty()
