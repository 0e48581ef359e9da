# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""`AOISSLSegmenter` in anomalib's engine: it learns, keeps its budget, saves, loads, and says what is wrong."""

import copy
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anomalib.engine import Engine
from lightning.pytorch import Callback
from PIL import Image

from anomalib_aoissl import AOISSLSegmenter, SegmentationFolder
from anomalib_aoissl.data.errors import DatasetError
from anomalib_aoissl.data.file_format import FileFormat
from anomalib_aoissl.retrieval.openvino_file import core
from anomalib_aoissl.segmenter.adaptation import LowRankLinear
from anomalib_aoissl.segmenter.callbacks import BestCheckpoint
from anomalib_aoissl.segmenter.class_weights import class_weights, count_pixels
from anomalib_aoissl.segmenter.heads import linear_part
from anomalib_aoissl.segmenter.probe import fit_probe, plain_samples

SIZE = (64, 64)
QUIET = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False, "logger": False}


def make_model(tiny_encoder: dict, **arguments: Any) -> AOISSLSegmenter:
    defaults = {"pretrained": False, "image_size": SIZE, "head_channels": 16, "validations": 2, "visualizer": False}
    return AOISSLSegmenter(**{"encoder": tiny_encoder, **defaults, **arguments})


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with eight images of bars and discs, 64x64 px."""
    root, random = tmp_path_factory.mktemp("shapes"), np.random.default_rng(0)
    rows, columns = np.mgrid[:64, :64]
    for index in range(8):
        mask = np.zeros((64, 64), dtype=np.uint8)
        mask[8 + 4 * index : 14 + 4 * index, 4:60] = 1
        mask[(rows - 50 + 4 * index) ** 2 + (columns - 10 - 5 * index) ** 2 < 60] = 2
        image = np.array([60, 220, 140])[mask] + random.integers(-20, 20, (64, 64))
        for kind, array in (("images", image), ("masks", mask)):
            path = root / kind / f"{index}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(array.astype(np.uint8)).save(path)
    (root / "classes.txt").write_text("background\nbar\ndisc\n")
    return root


def make_data(root: Path, **arguments: Any) -> SegmentationFolder:
    return SegmentationFolder(root, **{"num_workers": 0, "test_ratio": 0.25, "val_ratio": 0.25, **arguments})


class Record(Callback):
    """Notes what happens in a run."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.losses: list[float] = []
        self.validated_at: list[int] = []
        self.images: list[torch.Tensor] = []

    def on_train_batch_end(self, trainer: Any, _module: Any, outputs: Any, batch: Any, _index: int) -> None:
        self.rates.append(max(group["lr"] for group in trainer.optimizers[0].param_groups))
        self.losses.append(float(outputs["loss"]))
        self.images.append(batch.image)

    def on_validation_epoch_end(self, trainer: Any, _module: Any) -> None:
        self.validated_at.append(trainer.global_step)


def train(model: AOISSLSegmenter, data: Any, folder: Path, **trainer: Any) -> tuple[Engine, Record, dict]:
    record = Record()
    engine = Engine(default_root_dir=folder, callbacks=[record], **{"max_steps": 4, **QUIET, **trainer})
    return engine, record, engine.train(model, datamodule=data)[0]


def test_it_learns_two_images_by_heart(tiny_encoder: dict, shapes: Path, tmp_path: Path) -> None:
    model = make_model(
        tiny_encoder, augment="none", learning_rate=5e-3, layer_decay=1.0, validations=4, head_channels=32
    )
    data = make_data(shapes, shots=2)
    data.setup()
    data.val_data = data.test_data = data.train_data
    data._is_setup = True
    _, record, results = train(model, data, tmp_path, max_steps=80)
    assert len(data.train_data) == 2
    assert np.mean(record.losses[-10:]) < 0.3 * np.mean(record.losses[:5])
    assert min(results["iou_bar"], results["iou_disc"]) > 0.8


def test_a_budget_of_steps_ends_at_rate_zero(tiny_encoder: dict, shapes: Path, tmp_path: Path) -> None:
    model = make_model(tiny_encoder, validations=3, learning_rate=0.01, warmup=0.25)
    engine, record, _ = train(model, make_data(shapes), tmp_path, max_steps=12)
    assert engine.trainer.global_step == 12
    assert record.rates[-1] == 0
    assert max(record.rates) == pytest.approx(0.01)
    assert record.rates.index(max(record.rates)) == 2  # after three of twelve steps
    assert record.validated_at[:4] == [1, 4, 8, 12]
    assert engine.trainer.check_val_every_n_epoch == 1


def test_the_probe_is_kept_where_training_makes_it_worse(tiny_encoder: dict, shapes: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = make_model(tiny_encoder, learning_rate=0.05, encoder_rate=1.0)
    engine, record, results = train(model, make_data(shapes), tmp_path, max_steps=6)
    assert record.validated_at[0] == 1
    assert torch.load(engine.best_model_path, weights_only=True)["global_step"] == 1
    assert results["mean_iou"] > 0.7


def test_a_budget_of_epochs_ends_at_rate_zero(tiny_encoder: dict, shapes: Path, tmp_path: Path) -> None:
    engine, record, _ = train(make_model(tiny_encoder), make_data(shapes), tmp_path, max_steps=-1, max_epochs=5)
    assert engine.trainer.global_step == 5
    assert record.rates[-1] == 0


def test_a_budget_of_time_ends_near_rate_zero(tiny_encoder: dict, shapes: Path, tmp_path: Path) -> None:
    model = make_model(tiny_encoder, learning_rate=0.01)
    _, record, _ = train(model, make_data(shapes), tmp_path, max_steps=-1, max_time="00:00:00:02")
    assert len(record.rates) > 4
    assert max(record.rates) > 0.005
    assert record.rates[-1] < 0.001
    assert 2 <= len(record.validated_at) <= 4


def test_the_model_s_own_budget_replaces_the_trainer_s(tiny_encoder: dict, shapes: Path, tmp_path: Path) -> None:
    engine, record, _ = train(make_model(tiny_encoder, budget=3), make_data(shapes), tmp_path, max_steps=9)
    assert engine.trainer.global_step == 3
    assert record.rates[-1] == 0
    assert make_model(tiny_encoder, budget="00:00:01:00").trainer_arguments["max_time"] == "00:00:01:00"


def test_the_trainer_s_own_validation_interval_holds(tiny_encoder: dict, shapes: Path, tmp_path: Path) -> None:
    _, record, _ = train(make_model(tiny_encoder), make_data(shapes), tmp_path, check_val_every_n_epoch=3, max_steps=6)
    assert record.validated_at[:2] == [3, 6]


class Run:
    """One trained model and its checkpoint."""

    def __init__(self, tiny_encoder: dict, shapes: Path, folder: Path) -> None:
        self.model = make_model(tiny_encoder, lora_rank=2, ema_decay=0.5, validations=4, class_weights="balanced")
        self.engine, self.record, self.results = train(self.model, make_data(shapes), folder, max_steps=8)
        self.checkpoint = Path(self.engine.best_model_path)


@pytest.fixture(scope="module")
def run(tiny_encoder: dict, shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(tiny_encoder, shapes, tmp_path_factory.mktemp("run"))


def test_the_best_weights_are_kept_and_tested(run: Run) -> None:
    assert run.checkpoint.name == "model.ckpt"
    assert isinstance(run.engine.checkpoint_callback, BestCheckpoint)
    saved = torch.load(run.checkpoint, weights_only=True)
    for name, weight in run.model.state_dict().items():
        assert torch.equal(weight, saved["state_dict"][name]), name
    assert "current_model_state" in saved  # those that were not averaged


def test_a_checkpoint_comes_back_from_its_path_alone(run: Run, shapes: Path, tmp_path: Path) -> None:
    images = torch.rand(2, 3, 80, 70)
    expected = run.model.eval()(images)
    model = AOISSLSegmenter.load_from_checkpoint(run.checkpoint)
    assert model.class_names == ("background", "bar", "disc")
    for ours, theirs in zip(model.eval()(images)[0:4:3], expected[0:4:3], strict=True):
        torch.testing.assert_close(ours, theirs)
    fresh = AOISSLSegmenter(pretrained=False, visualizer=False)  # the checkpoint brings encoder, size and head along
    results = Engine(default_root_dir=tmp_path, **QUIET).test(
        fresh, datamodule=make_data(shapes), ckpt_path=run.checkpoint
    )
    assert results[0]["mean_iou"] == pytest.approx(run.results["mean_iou"], abs=1e-6)


def test_training_goes_on_from_a_checkpoint(run: Run, shapes: Path, tmp_path: Path) -> None:
    model = AOISSLSegmenter(pretrained=False, visualizer=False, validations=2, ema_decay=0.5)
    engine = Engine(default_root_dir=tmp_path, **QUIET, max_steps=12)
    engine.fit(model, datamodule=make_data(shapes), ckpt_path=run.checkpoint)
    assert engine.trainer.global_step == 12


class FirstWeights(Callback):
    """Keeps the head's linear weights as they are before the first step."""

    def __init__(self) -> None:
        self.linear = self.decoder = torch.empty(0)

    def on_train_batch_start(self, _trainer: Any, module: Any, _batch: Any, _index: int) -> None:
        if not len(self.linear):
            self.linear = module.model.head.linear.classify.weight.detach().clone()
            self.decoder = module.model.head.decoder.classify[-1].weight.detach().clone()


def test_training_starts_from_the_probe_and_goes_on_without_another(
    tiny_encoder: dict, shapes: Path, tmp_path: Path
) -> None:
    first, data = FirstWeights(), make_data(shapes)
    engine = Engine(default_root_dir=tmp_path, callbacks=[first], max_steps=3, limit_val_batches=0, **QUIET)
    engine.fit(make_model(tiny_encoder, select="last", learning_rate=0.01, probe=2), datamodule=data)
    assert not first.decoder.any()
    bare = make_model(tiny_encoder, probe=2)
    bare.set_dataset(("background", "bar", "disc"), FileFormat())
    bare.model.make_head(3)
    counts = count_pixels(data.train_data, 3)
    samples = plain_samples(data.train_data, range(4), bare.pre_processor.transform, torch.device("cpu"))
    weights = torch.tensor(class_weights("root", counts, bare.class_names))
    fit_probe(bare.model.head.linear, bare.model.eval().extract, samples, views=2, class_weights=weights)
    torch.testing.assert_close(first.linear, bare.model.head.linear.classify.weight.detach(), atol=1e-4, rtol=1e-3)
    checkpoint = torch.load(engine.checkpoint_callback.last_model_path, weights_only=True)
    saved = checkpoint["state_dict"]["model.head.linear.classify.weight"]
    again = FirstWeights()
    engine = Engine(default_root_dir=tmp_path / "on", callbacks=[again], max_steps=4, limit_val_batches=0, **QUIET)
    model = make_model(tiny_encoder, select="last", learning_rate=0.01, probe=2)
    engine.fit(
        model,
        datamodule=data,
        ckpt_path=tmp_path / "AOISSLSegmenter/SegmentationFolder/v0/weights/lightning/model.ckpt",
    )
    assert torch.equal(again.linear, saved)
    assert not torch.equal(again.linear, first.linear)


def test_without_a_probe_there_is_no_linear_head(tiny_encoder: dict, shapes: Path, tmp_path: Path) -> None:
    model = make_model(tiny_encoder, probe=0)
    train(model, make_data(shapes), tmp_path, max_steps=1)
    assert linear_part(model.model.head) is None


def test_a_weight_argument_against_the_checkpoint_is_refused(run: Run, shapes: Path, tmp_path: Path) -> None:
    model, engine = AOISSLSegmenter(pretrained=False, head="conv"), Engine(default_root_dir=tmp_path, **QUIET)
    with pytest.raises(ValueError, match=r"Leave out --model.head: the checkpoint brings it along"):
        engine.test(model, datamodule=make_data(shapes), ckpt_path=run.checkpoint)


def test_other_classes_than_the_checkpoint_s_are_refused(run: Run, shapes: Path, tmp_path: Path) -> None:
    data = make_data(shapes, classes=["background", "bar", "blob"])
    engine = Engine(default_root_dir=tmp_path, **QUIET)
    with pytest.raises(ValueError, match=r"knows the classes \['background', 'bar', 'disc'\], the data has .*'blob'"):
        engine.test(AOISSLSegmenter(pretrained=False), datamodule=data, ckpt_path=run.checkpoint)


def test_an_exported_model_has_no_adapters_and_the_trained_one_keeps_them(run: Run, tmp_path: Path) -> None:
    path = run.model.to_torch(tmp_path)
    exported = torch.load(path, weights_only=False)["model"].eval()
    assert not any(isinstance(part, LowRankLinear) for part in exported.modules())
    assert any(isinstance(part, LowRankLinear) for part in run.model.modules())
    images = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(exported(images).anomaly_map, run.model.eval()(images).anomaly_map, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("head", "form"), [("upernet", "openvino"), ("conv", "onnx"), ("linear", "onnx")])
def test_exports_equal_torch_for_any_batch_and_size(tiny_encoder: dict, tmp_path: Path, head: str, form: str) -> None:
    pytest.importorskip("openvino")
    model = make_model(tiny_encoder, image_size=(64, 48), lora_rank=2, head=head)
    model.set_dataset(["background", "bar", "disc"], FileFormat())
    model._complete()
    for parameter in model.model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    model.eval()
    path = model.to_openvino(tmp_path) if form == "openvino" else model.to_onnx(tmp_path)
    network = core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for shape in ((1, 3, 64, 48), (3, 3, 50, 90)):
        images = torch.rand(shape)
        result, expected = network(images.numpy()), model(images)
        assert result["pred_mask"].shape == (shape[0], 1, 64, 48)
        assert (result["pred_mask"] == expected.pred_mask.numpy()).mean() > 0.999
        np.testing.assert_allclose(result["anomaly_map"], expected.anomaly_map.detach().numpy(), atol=1e-4)
        np.testing.assert_allclose(result["pred_score"], expected.pred_score.detach().numpy(), atol=1e-4)


def test_averaging_follows_its_formula(tiny_encoder: dict, shapes: Path, tmp_path: Path) -> None:
    weights: list[torch.Tensor] = []

    class Watch(Callback):
        def on_before_zero_grad(self, _trainer: Any, pl_module: Any, _optimizer: Any) -> None:
            weights.append(pl_module.model.head.decoder.classify[1].weight.detach().clone())

    model = make_model(tiny_encoder, ema_decay=0.3, select="last", augment="none")
    engine = Engine(default_root_dir=tmp_path, callbacks=[Watch()], max_steps=4, limit_val_batches=0, **QUIET)
    engine.fit(model, datamodule=make_data(shapes))
    # Weights after step 1 begin the average; step n + 1 keeps min(0.3, (1 + n) / (10 + n)) of it.
    after = [*weights[1:], None]
    average = after[0]
    for count, current in enumerate(after[1:-1], start=1):
        keep = min(0.3, (1 + count) / (10 + count))
        average = keep * average + (1 - keep) * current
    assert len(weights) == 4
    final = model.model.head.decoder.classify[1].weight.detach()
    assert not torch.equal(final, after[2])
    # The last step's weights are seen by no hook; the average keeps the share of min(0.3, 4 / 13) of what came before.
    last = (final - 0.3 * average) / 0.7
    assert (last - after[2]).abs().max() < 5e-3
    assert Path(tmp_path / "AOISSLSegmenter/SegmentationFolder/v0/weights/lightning/model.ckpt").is_file()


def test_augmentation_of_the_data_goes_first(tiny_encoder: dict, shapes: Path, tmp_path: Path) -> None:
    from torchvision.transforms.v2 import RandomHorizontalFlip

    data = make_data(shapes)
    Engine(default_root_dir=tmp_path, max_steps=1, **QUIET).fit(make_model(tiny_encoder), datamodule=data)
    assert "Shift" in str(data.train_data.augmentations)
    assert "Shift" not in str(data.val_data.augmentations)
    for arguments, model in (({"train_augmentations": RandomHorizontalFlip()}, {}), ({}, {"augment": "none"})):
        data = make_data(shapes, **arguments)
        Engine(default_root_dir=tmp_path, max_steps=1, **QUIET).fit(make_model(tiny_encoder, **model), datamodule=data)
        assert "Shift" not in str(data.train_data.augmentations)


def test_frozen_weights_stay(tiny_encoder: dict, shapes: Path, tmp_path: Path) -> None:
    model = make_model(tiny_encoder, freeze="all", head="linear", augment="none")
    before = copy.deepcopy(model.encoder.state_dict())
    train(model, make_data(shapes), tmp_path)
    for name, weight in model.encoder.state_dict().items():
        assert torch.equal(weight, before[name])


def test_early_stopping_ends_a_run(tiny_encoder: dict, shapes: Path, tmp_path: Path) -> None:
    model = make_model(tiny_encoder, early_stopping=2, validations=10, learning_rate=1e-12)
    engine, _, _ = train(model, make_data(shapes), tmp_path, max_steps=20)
    assert engine.trainer.global_step == 4  # after steps 1, 2 and 4: the first, and two that were not better


def test_no_validation_images_are_an_error_and_select_last_takes_none(
    tiny_encoder: dict, shapes: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="There is no validation image, but BestCheckpoint goes by val_mean_iou"):
        train(make_model(tiny_encoder), make_data(shapes, val_ratio=0.0), tmp_path)
    engine, record, _ = train(make_model(tiny_encoder, select="last"), make_data(shapes, val_ratio=0.0), tmp_path)
    assert record.validated_at == []
    assert (Path(engine.trainer.default_root_dir) / "weights" / "lightning" / "model.ckpt").is_file()


def test_a_class_without_pixels_is_named(
    tiny_encoder: dict, shapes: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = make_data(shapes, classes=["background", "bar", "disc", "crack"])
    with caplog.at_level(logging.WARNING, "anomalib_aoissl"):
        train(make_model(tiny_encoder, class_weights="balanced"), data, tmp_path)
    assert "No training mask has a pixel of ['crack']" in caplog.text


def test_a_loss_that_is_no_number_stops_with_the_files(tiny_encoder: dict, shapes: Path, tmp_path: Path) -> None:
    model = make_model(tiny_encoder)

    class Break(Callback):
        def on_train_batch_start(self, _trainer: Any, _module: Any, batch: Any, _index: int) -> None:
            batch.image[0, 0, 0, 0] = float("nan")

    engine = Engine(default_root_dir=tmp_path, callbacks=[Break()], max_steps=2, **QUIET)
    with pytest.raises(FloatingPointError, match=r"The loss is nan at step 0, on the images \[.*images/\d.png"):
        engine.fit(model, datamodule=make_data(shapes))


def test_an_untrained_model_cannot_be_tested(tiny_encoder: dict, shapes: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="has no head yet"):
        Engine(default_root_dir=tmp_path, **QUIET).test(make_model(tiny_encoder), datamodule=make_data(shapes))


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"learning_rate": 0}, "learning_rate=0 must be greater than 0"),
        ({"encoder_rate": 0}, r"encoder_rate=0 must lie in \(0, 1\]"),
        ({"probe": -1}, "probe=-1 must not be negative"),
        ({"augment": "much"}, "augment='much' is unknown"),
        ({"layer_decay": 1.5}, r"layer_decay=1.5 must lie in \(0, 1\]"),
        ({"warmup": 1.0}, r"warmup=1.0 must lie in \[0, 1\)"),
        ({"loss": "mse"}, "loss='mse'"),
        ({"head": "fpn"}, "head='fpn' is unknown"),
        ({"image_size": (63, 64)}, "must divide"),
    ],
)
def test_arguments_out_of_range_are_refused_at_once(tiny_encoder: dict, argument: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_model(tiny_encoder, **argument)


def test_masks_are_needed(tiny_encoder: dict, tmp_path: Path, shapes: Path) -> None:
    from anomalib.data import Folder

    data = Folder("plain", root=shapes, normal_dir="images", num_workers=0)
    with pytest.raises(TypeError, match="AOISSLSegmenter needs images with class-index masks"):
        Engine(default_root_dir=tmp_path, **QUIET, max_steps=1).fit(make_model(tiny_encoder), datamodule=data)
    with pytest.raises(DatasetError):
        make_data(shapes, classes=["background", "bar"]).setup()
