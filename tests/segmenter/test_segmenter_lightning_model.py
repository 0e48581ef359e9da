# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""`AOISSLSegmenter` in anomalib's engine: it learns, keeps its budget, stops, and says what is wrong."""

import copy
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anomalib.engine import Engine
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import Timer
from PIL import Image
from segmenter_runs import QUIET, Record, make_data, make_model, train
from torchvision.transforms.v2 import RandomHorizontalFlip

from anomalib_aoissl.data.errors import DatasetError
from anomalib_aoissl.segmenter import starting


def test_its_loss_falls_and_it_ends_no_worse_than_the_head(tiny_encoder: dict, shapes: Path, tmp_path: Path) -> None:
    model = make_model(tiny_encoder, validations=4, learning_rate=5e-3)
    _, record, results = train(model, make_data(shapes), tmp_path, max_steps=40)
    assert np.mean(record.losses[-5:]) < 0.65 * np.mean(record.losses[:5])
    assert max(record.mean_iou) >= record.mean_iou[0]  # the first one is after the first step: the head's
    assert results["mean_iou"] > 0.7


def test_a_budget_of_steps_ends_at_rate_zero(tiny_encoder: dict, shapes: Path, tmp_path: Path) -> None:
    model = make_model(tiny_encoder, validations=3, learning_rate=0.01)
    engine, record, _ = train(model, make_data(shapes), tmp_path, max_steps=12)
    assert engine.trainer.global_step == 12
    assert record.rates[-1] == 0
    assert max(record.rates) == pytest.approx(0.01, rel=0.02)
    assert record.rates.index(max(record.rates)) == 0  # the warm-up is a twentieth of the steps
    assert record.validated_at[:4] == [1, 4, 8, 12]
    assert engine.trainer.check_val_every_n_epoch == 1


class Heads(Callback):
    """Notes what the head alone says of the first image, and what the model does after the first step."""

    def on_validation_start(self, trainer: Any, module: Any) -> None:
        if trainer.global_step != 1:
            return
        images = module.pre_processor(trainer.datamodule.val_data[0].image[None].as_subclass(torch.Tensor))
        self.head = module.model.head(images, module.model.extract(images)).argmax(dim=1)
        self.model = module.model(images).pred_mask[:, 0]


def test_the_head_is_kept_where_training_makes_it_worse(tiny_encoder: dict, shapes: Path, tmp_path: Path) -> None:
    heads, model = Heads(), make_model(tiny_encoder, validations=3, learning_rate=1e-3)

    class Spoil(Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
            if trainer.global_step == 2:
                torch.nn.init.normal_(module.model.decoder.coarse_scores.bias, std=100)
                module.model.weigh(0.1, 0.1)

    engine = Engine(default_root_dir=tmp_path, callbacks=[heads, Spoil()], max_steps=3, **QUIET)
    engine.train(model, datamodule=make_data(shapes))
    assert (heads.head == heads.model).float().mean() > 0.99
    assert torch.load(engine.best_model_path, weights_only=True)["global_step"] == 1
    assert model.model.decoder.coarse_scores.bias.abs().max() < 1


def test_a_budget_of_epochs_ends_at_rate_zero(tiny_encoder: dict, shapes: Path, tmp_path: Path) -> None:
    engine, record, _ = train(make_model(tiny_encoder), make_data(shapes), tmp_path, max_steps=-1, max_epochs=5)
    assert engine.trainer.global_step == 5
    assert record.rates[-1] == 0


def test_time_that_the_head_alone_uses_up_leaves_the_head(
    tiny_encoder: dict, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads = Heads()
    model = make_model(tiny_encoder)
    engine = Engine(default_root_dir=tmp_path, callbacks=[heads], max_steps=-1, max_time={"milliseconds": 1}, **QUIET)
    engine.train(model, datamodule=make_data(shapes))
    assert engine.trainer.global_step == 1
    assert (heads.head == heads.model).float().mean() > 0.99


class Clock(Callback):
    """Moves the trainer's clock by 100 s in each step; what comes before the first one takes 1000 s."""

    def on_train_start(self, trainer: Any, _module: Any) -> None:
        self.timer = next(callback for callback in trainer.callbacks if isinstance(callback, Timer))
        self.timer._offset = 1000

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        self.timer._offset = 1000 + 100 * trainer.global_step


def test_a_budget_of_time_ends_near_rate_zero(tiny_encoder: dict, shapes: Path, tmp_path: Path) -> None:
    model, record, limit = make_model(tiny_encoder, learning_rate=0.01), Record(), {"seconds": 5000}
    engine = Engine(default_root_dir=tmp_path, callbacks=[Clock(), record], max_steps=-1, max_time=limit, **QUIET)
    engine.fit(model, datamodule=make_data(shapes))
    assert 30 <= engine.trainer.global_step <= 41
    assert max(record.rates) > 0.008
    assert record.rates[-1] < 0.001
    assert record.validated_at[0] == 1
    assert len(record.validated_at) == 3


def test_the_model_s_own_budget_replaces_the_trainer_s(tiny_encoder: dict, shapes: Path, tmp_path: Path) -> None:
    engine, record, _ = train(make_model(tiny_encoder, budget=3), make_data(shapes), tmp_path, max_steps=9)
    assert engine.trainer.global_step == 3
    assert record.rates[-1] == 0
    assert make_model(tiny_encoder, budget="00:00:01:00").trainer_arguments["max_time"] == "00:00:01:00"


def test_the_trainer_s_own_validation_interval_holds(tiny_encoder: dict, shapes: Path, tmp_path: Path) -> None:
    _, record, _ = train(make_model(tiny_encoder), make_data(shapes), tmp_path, check_val_every_n_epoch=3, max_steps=6)
    assert record.validated_at[:2] == [3, 6]


def test_the_encoder_stays_as_it_is(tiny_encoder: dict, shapes: Path, tmp_path: Path) -> None:
    model = make_model(tiny_encoder)
    before = copy.deepcopy(model.encoder.state_dict())
    train(model, make_data(shapes), tmp_path)
    for name, weight in model.encoder.state_dict().items():
        assert torch.equal(weight, before[name])
    assert model.examples is None  # nothing of the images stays in memory
    assert model.class_weights is None


def test_no_validation_images_are_an_error_before_the_head_is_fitted_and_select_last_takes_none(
    tiny_encoder: dict, shapes: Path, tmp_path: Path
) -> None:
    model = make_model(tiny_encoder)
    with pytest.raises(ValueError, match="There is no validation image, but BestCheckpoint goes by val_mean_iou"):
        train(model, make_data(shapes, val_ratio=0.0), tmp_path)
    assert not model.model.head.fitted
    engine, record, _ = train(make_model(tiny_encoder, select="last"), make_data(shapes, val_ratio=0.0), tmp_path)
    assert record.validated_at == []
    assert (Path(engine.trainer.default_root_dir) / "weights" / "lightning" / "model.ckpt").is_file()


def test_a_run_without_a_budget_is_an_error(tiny_encoder: dict, shapes: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Give --trainer\.max_steps"):
        train(make_model(tiny_encoder), make_data(shapes), tmp_path, max_steps=-1, max_epochs=-1)


def test_a_class_without_pixels_is_named_and_a_step_without_labels_changes_nothing(
    tiny_encoder: dict, shapes: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for kind in ("images", "masks"):
        (tmp_path / "data" / kind).mkdir(parents=True)
        for path in (shapes / kind).iterdir():
            (tmp_path / "data" / kind / path.name).write_bytes(path.read_bytes())
    masks = [tmp_path / "data" / "masks" / f"{index}.png" for index in range(8)]
    data = make_data(tmp_path / "data", classes=["background", "bar", "disc", "crack"], train_batch_size=1)
    data.setup()
    unlabelled = Path(data.train_data.samples.mask_path.iloc[0])
    assert unlabelled in masks
    Image.fromarray(np.full((64, 64), 255, np.uint8)).save(unlabelled)
    with caplog.at_level(logging.WARNING, "anomalib_aoissl"):
        _, record, results = train(make_model(tiny_encoder), data, tmp_path, max_epochs=1, max_steps=-1)
    assert "No image that the pixel head is fitted to shows ['crack']" in caplog.text
    assert record.losses.count(0.0) == 1
    assert len(record.losses) == 4
    assert 0 <= results["mean_iou"] <= 1


def test_an_image_that_the_head_was_not_fitted_to_may_have_a_class_of_its_own(
    tiny_encoder: dict, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starting, "MOST_IMAGES", 2)
    model = make_model(tiny_encoder, select="last")
    data = make_data(shapes, val_ratio=0.0, test_ratio=0.5, classes=["background", "bar", "disc", "crack"])
    data.setup()
    last = data.train_data.samples.mask_path.iloc[-1]
    read = data.train_data._mask
    data.train_data._mask = lambda path: torch.full_like(read(path), 3) if path == last else read(path)
    _, record, _ = train(model, data, tmp_path, max_steps=2)
    assert np.isfinite(record.losses).all()


def test_augmentations_of_the_data_are_said_not_to_be_used(
    tiny_encoder: dict, shapes: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = make_data(shapes, train_augmentations=RandomHorizontalFlip())
    with caplog.at_level(logging.WARNING, "anomalib_aoissl"):
        Engine(default_root_dir=tmp_path, max_steps=1, **QUIET).fit(make_model(tiny_encoder), datamodule=data)
    assert "augmentations of training images are not used" in caplog.text


def test_a_loss_that_is_no_number_stops_with_the_files(tiny_encoder: dict, shapes: Path, tmp_path: Path) -> None:
    class Break(Callback):
        def on_train_batch_start(self, _trainer: Any, module: Any, _batch: Any, _index: int) -> None:
            module.model.decoder.coarse_scores.bias.data[0] = float("nan")

    engine = Engine(default_root_dir=tmp_path, callbacks=[Break()], max_steps=2, **QUIET)
    with pytest.raises(FloatingPointError, match=r"The loss is nan at step 0, on the images \[.*images/\d.png"):
        engine.fit(make_model(tiny_encoder), datamodule=make_data(shapes))


def test_an_untrained_model_cannot_be_tested(tiny_encoder: dict, shapes: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="The segmenter is not trained"):
        Engine(default_root_dir=tmp_path, **QUIET).test(make_model(tiny_encoder), datamodule=make_data(shapes))


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"learning_rate": 0}, "training.learning_rate=0 must be greater than 0"),
        ({"learning_rate": float("nan")}, "training.learning_rate=nan must be a number, and be greater than 0"),
        ({"image_size": (63, 64)}, "must divide"),
        ({"pretraining": "mea"}, "pretraining='mea' must be one of"),
    ],
)
def test_arguments_out_of_range_are_errors_at_once(tiny_encoder: dict, argument: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_model(tiny_encoder, **argument)


def test_masks_are_needed(tiny_encoder: dict, tmp_path: Path, shapes: Path) -> None:
    from anomalib.data import Folder

    data = Folder("plain", root=shapes, normal_dir="images", num_workers=0)
    with pytest.raises(TypeError, match="AOISSLSegmenter needs images with class-index masks"):
        Engine(default_root_dir=tmp_path, **QUIET, max_steps=1).fit(make_model(tiny_encoder), datamodule=data)
    with pytest.raises(DatasetError):
        make_data(shapes, classes=["background", "bar"]).setup()
