# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""A trained segmenter: what is saved, what comes back, what is exported."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anomalib.engine import Engine
from segmenter_runs import QUIET, fill_head, make_data, make_model, train, wake

from anomalib_aoissl import AOISSLSegmenter
from anomalib_aoissl.data.describing.file_format import FileFormat
from anomalib_aoissl.deployment.files.model_file import core
from anomalib_aoissl.segmenter import starting
from anomalib_aoissl.segmenter.callbacks import BestCheckpoint
from anomalib_aoissl.segmenter.examples import Examples


class Run:
    """One trained model and its checkpoint."""

    def __init__(self, tiny_encoder: dict, shapes: Path, folder: Path) -> None:
        self.model = make_model(tiny_encoder, validations=4)
        self.engine, self.record, self.results = train(self.model, make_data(shapes), folder, max_steps=8)
        self.checkpoint = Path(self.engine.best_model_path)


@pytest.fixture(scope="module")
def run(tiny_encoder: dict, shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(tiny_encoder, shapes, tmp_path_factory.mktemp("run"))


def test_the_best_weights_are_kept_and_tested(run: Run) -> None:
    assert run.checkpoint.name == "model.ckpt"
    assert isinstance(run.engine.checkpoint_callback, BestCheckpoint)
    saved = torch.load(run.checkpoint, weights_only=True)
    best = int(np.argmax(run.record.mean_iou))
    assert saved["global_step"] == run.record.validated_at[best]
    for name, weight in run.model.state_dict().items():
        assert torch.equal(weight, saved["state_dict"][name]), name


def test_a_checkpoint_comes_back_from_its_path_alone(run: Run, shapes: Path, tmp_path: Path) -> None:
    images = torch.rand(2, 3, 80, 70)
    expected = run.model.eval()(images)
    model = AOISSLSegmenter.load_from_checkpoint(run.checkpoint)
    assert model.class_names == ("background", "bar", "disc")
    for ours, theirs in zip(model.eval()(images)[0:4:3], expected[0:4:3], strict=True):
        torch.testing.assert_close(ours, theirs)
    fresh = AOISSLSegmenter(
        encoder={"pretrained": False}, visualizer=False
    )  # the checkpoint brings encoder, size and head along
    results = Engine(default_root_dir=tmp_path, **QUIET).test(
        fresh, datamodule=make_data(shapes), ckpt_path=run.checkpoint
    )
    assert results[0]["mean_iou"] == pytest.approx(run.results["mean_iou"], abs=1e-6)


def test_a_test_on_other_files_leaves_how_the_models_own_are_read(
    run: Run, shapes: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = AOISSLSegmenter.load_from_checkpoint(run.checkpoint)
    model.file_format = own = replace(model.file_format, bit_depth=12)
    with caplog.at_level(logging.WARNING):
        Engine(default_root_dir=tmp_path, **QUIET).test(model, datamodule=make_data(shapes))
    assert model.file_format == own
    assert "trained with bit_depth=12, this data is read with bit_depth=None" in caplog.text


def test_training_goes_on_from_a_checkpoint(
    run: Run, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = torch.load(run.checkpoint, weights_only=True)
    steps: list[int] = []

    def examples(*given: Any, step: int, **more: Any) -> Examples:
        steps.append(step)
        return Examples(*given, step=step, **more)

    monkeypatch.setattr(starting, "Examples", examples)
    model = AOISSLSegmenter(encoder={"pretrained": False}, visualizer=False, training={"validations": 2})
    engine = Engine(default_root_dir=tmp_path, **QUIET, max_steps=saved["global_step"] + 2)
    engine.fit(model, datamodule=make_data(shapes), ckpt_path=run.checkpoint)
    assert engine.trainer.global_step == saved["global_step"] + 2
    assert steps == [saved["global_step"]]  # views are drawn on, not once again
    # The head is fitted to the same images again, and is the same.
    torch.testing.assert_close(model.model.head.mean, saved["state_dict"]["model.head.mean"])
    torch.testing.assert_close(model.model.head.get_buffer("first_0"), saved["state_dict"]["model.head.first_0"])


def test_a_weight_argument_against_the_checkpoint_is_an_error(run: Run, shapes: Path, tmp_path: Path) -> None:
    model = AOISSLSegmenter(encoder={"pretrained": False}, image_size=(96, 96))
    with pytest.raises(ValueError, match=r"Leave out --model.image_size: the checkpoint brings it along"):
        Engine(default_root_dir=tmp_path, **QUIET).test(model, datamodule=make_data(shapes), ckpt_path=run.checkpoint)


def test_other_classes_than_the_checkpoint_s_are_an_error(run: Run, shapes: Path, tmp_path: Path) -> None:
    data = make_data(shapes, classes=["background", "bar", "blob"])
    engine = Engine(default_root_dir=tmp_path, **QUIET)
    with pytest.raises(ValueError, match=r"knows the classes \['background', 'bar', 'disc'\], the data has .*'blob'"):
        engine.test(AOISSLSegmenter(encoder={"pretrained": False}), datamodule=data, ckpt_path=run.checkpoint)


def test_a_checkpoint_of_version_0_1_0_is_an_error_in_a_sentence(run: Run, shapes: Path, tmp_path: Path) -> None:
    """As its segmenter wrote it: other arguments, another head, and a pre-processor that left the light as it was."""
    checkpoint = torch.load(run.checkpoint, weights_only=True)
    checkpoint["hyper_parameters"].update(head="upernet", head_channels=96, probe=8, pretrained=True, normalize=True)
    encoder = {key: value for key, value in checkpoint["state_dict"].items() if ".encoder." in key}
    checkpoint["state_dict"] = {**encoder, "model.head.linear.classify.weight": torch.zeros(3, 64, 1, 1)}
    resize = {"class_path": "torchvision.transforms.v2.Resize", "init_args": {"size": [64, 64]}}
    checkpoint["anomalib_pre_processor_config"] = {"transform": resize}
    torch.save(checkpoint, tmp_path / "old.ckpt")
    message = r"saved by version 0.1.0.* Train again, or use it with anomalib-aoissl 0.1.0"
    with pytest.raises(ValueError, match=message):
        AOISSLSegmenter.load_from_checkpoint(tmp_path / "old.ckpt")
    with pytest.raises(ValueError, match=message):
        Engine(default_root_dir=tmp_path, **QUIET).test(
            AOISSLSegmenter(encoder={"pretrained": False}),
            datamodule=make_data(shapes),
            ckpt_path=tmp_path / "old.ckpt",
        )


def test_a_torch_export_gives_the_same(run: Run, tmp_path: Path) -> None:
    exported = torch.load(run.model.to_torch(tmp_path), weights_only=False)["model"].eval()
    images = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(exported(images).anomaly_map, run.model.eval()(images).anomaly_map, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("autocontext", "form"), [(True, "openvino"), (False, "onnx")])
def test_exports_equal_torch_for_any_batch_and_size(
    few_filters: None, tiny_encoder: dict, tmp_path: Path, autocontext: bool, form: str
) -> None:
    pytest.importorskip("openvino")
    model = make_model(tiny_encoder, image_size=(64, 48))
    model.set_dataset(["background", "bar", "disc"], FileFormat())
    model.model.make_decoder(3)
    fill_head(model.model, 3, autocontext)
    wake(model.model)
    model.eval()
    with torch.no_grad():  # random weights may give one class everywhere
        shares = model.model.maps(model.pre_processor(torch.rand(1, 3, 64, 48))).mean(dim=(0, 2, 3))
        model.model.head.offsets -= shares.log()
    path = model.to_openvino(tmp_path) if form == "openvino" else model.to_onnx(tmp_path)
    network = core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for shape in ((1, 3, 64, 48), (3, 3, 50, 90)):
        images = torch.rand(shape)
        with torch.no_grad():
            result, expected = network(images.numpy()), model(images)
        assert result["pred_mask"].shape == (shape[0], 1, 64, 48)
        assert len(expected.pred_mask.unique()) > 1
        assert (result["pred_mask"] == expected.pred_mask.numpy()).mean() >= 0.999
        np.testing.assert_allclose(result["anomaly_map"], expected.anomaly_map.numpy(), atol=1e-3)
        np.testing.assert_allclose(result["pred_score"], expected.pred_score.numpy(), atol=1e-3)
