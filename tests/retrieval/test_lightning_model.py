# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""`AOISSLRetrieval` in anomalib's engine: train, test, predict, checkpoints; on drawn images of two devices."""

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anomalib.data import Folder
from anomalib.engine import Engine
from anomalib.models import get_model
from PIL import Image

from anomalib_aoissl import AOISSLRetrieval, SegmentationFolder
from anomalib_aoissl.data.reading import read_lighting_channels, read_mask

SIZE = (64, 96)
QUIET = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}


def make_model(tiny_encoder: dict, **arguments: Any) -> AOISSLRetrieval:
    return AOISSLRetrieval(**{"encoder": {**tiny_encoder, "pretrained": False}, "image_size": SIZE, **arguments})


def make_data(drawn_folder: Path, **arguments: Any) -> SegmentationFolder:
    return SegmentationFolder(drawn_folder, **{"num_workers": 0, "test_ratio": 0.25, "val_ratio": 0.25, **arguments})


class Run:
    """One trained model and what its run wrote."""

    def __init__(self, folder: Path, drawn_folder: Path, tiny_encoder: dict) -> None:
        self.model, self.data = make_model(tiny_encoder), make_data(drawn_folder)
        self.engine = Engine(default_root_dir=folder, **QUIET)
        self.results = self.engine.train(self.model, datamodule=self.data)[0]
        self.checkpoint = Path(self.engine.best_model_path)
        self.folder = self.checkpoint.parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, drawn_folder: Path, tiny_encoder: dict) -> Run:
    return Run(tmp_path_factory.mktemp("run"), drawn_folder, tiny_encoder)


def test_training_fills_the_bank_with_the_training_images(run: Run) -> None:
    bank = run.model.model.bank
    assert set(bank.image_names) == set(run.data.train_data.samples.image_path)
    assert set(bank.device_names) == {"sot23_copper", "soic8_gold"}
    assert bank.class_names == list(run.data.class_names)
    assert bank.describe()["images"] == 4
    assert bank.positions.unique().tolist() == list(range(96))  # 8 x 12 patches
    assert run.model.model.has_fitted_head
    assert sorted(np.unique(bank.pixels.image_ids).tolist()) == [0, 1, 2, 3]


def test_logged_metrics_are_those_of_the_written_masks(run: Run) -> None:
    intersection, union = np.zeros(5), np.zeros(5)
    for path in run.data.test_data.samples.mask_path:
        truth = read_mask(path)
        written = np.array(Image.open(run.folder / "masks" / Path(path).name))
        for index in range(5):
            intersection[index] += ((truth == index) & (written == index)).sum()
            union[index] += ((truth == index) | (written == index)).sum()
    present = union > 0
    expected = (intersection[present] / union[present]).mean()
    assert run.results["mean_iou"] == pytest.approx(expected, abs=1e-6)
    assert run.results["iou_wire"] == pytest.approx(intersection[1] / union[1], abs=1e-6)


def test_a_picture_is_written_for_each_test_image(run: Run) -> None:
    names = {Path(path).name for path in run.data.test_data.samples.mask_path}
    assert {path.name for path in (run.folder / "images").iterdir()} == names
    with Image.open(run.folder / "images" / next(iter(names))) as picture:
        assert picture.width == 4 * 480


def test_checkpoint_is_plain_data_and_gives_the_same_model(run: Run) -> None:
    content = torch.load(run.checkpoint, weights_only=True)
    assert content["anomalib_aoissl"]["class_names"][1] == "wire"
    assert content["anomalib_aoissl"]["file_format"]["lighting_channels"] == ["_ch0", "_ch1"]
    loaded = AOISSLRetrieval.load_from_checkpoint(run.checkpoint).eval()
    images = torch.rand(2, 3, 70, 90)
    expected, result = run.model.eval()(images), loaded(images)
    assert torch.equal(result.pred_mask, expected.pred_mask)
    torch.testing.assert_close(result.anomaly_map, expected.anomaly_map)
    assert loaded.class_names == run.model.class_names


def test_a_checkpoint_of_0_2_0_gives_the_same_model(run: Run, tmp_path: Path) -> None:
    content = torch.load(run.checkpoint, weights_only=True)
    saved = content["anomalib_aoissl"]["file_format"]
    saved["illuminations"] = saved.pop("lighting_channels")
    torch.save(content, tmp_path / "old.ckpt")
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        loaded = AOISSLRetrieval.load_from_checkpoint(tmp_path / "old.ckpt").eval()
    assert loaded.file_format == run.model.file_format
    assert loaded.file_format.lighting_channels == ("_ch0", "_ch1")
    images = torch.rand(1, 3, 70, 90)
    assert torch.equal(loaded(images).pred_mask, run.model.eval()(images).pred_mask)


def test_predict_needs_the_checkpoint_only_and_writes_masks_at_the_original_size(
    run: Run, drawn_folder: Path, tmp_path: Path
) -> None:
    for path in sorted((drawn_folder / "images").glob("*_000_ch*.png")):
        with Image.open(path) as image:
            image.resize((150, 100)).save(tmp_path / path.name)
    model = AOISSLRetrieval()  # the defaults: another encoder, another size
    engine = Engine(default_root_dir=tmp_path / "results", **QUIET)
    outputs = engine.predict(model, data_path=tmp_path, ckpt_path=run.checkpoint)
    masks = sorted((tmp_path / "results").rglob("masks/*.png"))
    assert [path.name for path in masks] == ["soic8_gold_00_000.png", "sot23_copper_00_000.png"]
    assert all(Image.open(path).size == (150, 100) for path in masks)
    # both lighting channels of the item were read, whichever of its files was named
    planes = read_lighting_channels([tmp_path / "soic8_gold_00_000_ch0.png", tmp_path / "soic8_gold_00_000_ch1.png"])
    expected = run.model.eval()(torch.from_numpy(planes)[None]).pred_mask[0, 0].numpy()
    assert np.array_equal(outputs[0].pred_mask[0].numpy(), expected)
    shown = np.array(Image.open(masks[0]))
    assert np.array_equal(shown[::50, ::50], np.array(Image.fromarray(expected).resize((150, 100), 0))[::50, ::50])


def test_test_from_a_checkpoint_gives_the_same_numbers(run: Run, tmp_path: Path, drawn_folder: Path) -> None:
    engine = Engine(default_root_dir=tmp_path, **QUIET)
    data = make_data(drawn_folder)
    results = engine.test(AOISSLRetrieval(visualizer=False), datamodule=data, ckpt_path=run.checkpoint)
    assert results[0]["mean_iou"] == pytest.approx(run.results["mean_iou"], abs=1e-6)


def test_arguments_that_fit_the_weights_may_change_and_others_raise(run: Run) -> None:
    content = torch.load(run.checkpoint, weights_only=True)
    model = AOISSLRetrieval(vote={"k": 7})
    model.on_load_checkpoint(content)
    assert model.hparams["vote"]["k"] == 7
    assert model.model.vote_options.k == 7
    assert model.hparams["image_size"] == SIZE
    with pytest.raises(ValueError, match=r"saved with image_size=\(64, 96\), but --model.image_size says \(128, 128\)"):
        AOISSLRetrieval(image_size=(128, 128)).on_load_checkpoint(content)


def test_other_classes_raise_with_both_lists(run: Run, drawn_folder: Path, tmp_path: Path) -> None:
    data = make_data(drawn_folder, classes=["background", "wire", "ball", "wedge", "glue"])
    engine = Engine(default_root_dir=tmp_path, **QUIET)
    with pytest.raises(ValueError, match=r"knows the classes \[.*'epoxy'\], the data has \[.*'glue'\]"):
        engine.test(AOISSLRetrieval(), datamodule=data, ckpt_path=run.checkpoint)


def test_data_without_class_index_masks_raises(tiny_encoder: dict, drawn_folder: Path, tmp_path: Path) -> None:
    data = Folder("drawn", root=drawn_folder, normal_dir="images", abnormal_dir="masks", num_workers=0)
    with pytest.raises(TypeError, match="needs images with class-index masks, got FolderDataset"):
        Engine(default_root_dir=tmp_path, **QUIET).fit(make_model(tiny_encoder), datamodule=data)


def test_training_again_starts_with_an_empty_bank(
    run: Run, drawn_folder: Path, tiny_encoder: dict, tmp_path: Path
) -> None:
    model = make_model(tiny_encoder, visualizer=False)
    for shots in (2, 1):
        engine = Engine(default_root_dir=tmp_path, **QUIET)
        engine.fit(model, datamodule=make_data(drawn_folder, shots=shots))
        assert model.model.bank.describe()["images"] == 2 * shots


def test_without_data_the_demonstration_set_is_used(
    tiny_encoder: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from anomalib_aoissl.wirebond import datamodule as wire_bond

    class SmallWireBond(wire_bond.WireBond):
        def __init__(self) -> None:
            super().__init__(tmp_path, devices=["sot23_copper"], image_size=(64, 64), num_workers=0)

    monkeypatch.setattr(wire_bond, "WireBond", SmallWireBond)
    model = make_model(tiny_encoder, image_size=64)
    with caplog.at_level(logging.WARNING):
        results = Engine(default_root_dir=tmp_path, **QUIET).train(model)
    assert caplog.text.count("using the demonstration set WireBond") == 1
    assert results[0]["pixel_accuracy"] > 0.5
    assert model.class_names[1] == "wire"


def test_configuration_objects_become_plain_data(tiny_encoder: dict) -> None:
    arguments = {"encoder": {**tiny_encoder, "pretrained": False}, "image_size": [64, 96]}
    model = get_model({"class_path": "AOISSLRetrieval", "init_args": arguments})
    assert type(model.hparams["encoder"]) is dict
    assert model.hparams["image_size"] == (64, 96)


def test_four_channel_images_train_and_export_shapes(tiny_encoder: dict) -> None:
    model = make_model(tiny_encoder, in_channels=4).eval()
    model.set_dataset(["background", "wire", "ball"], model.file_format)
    model.add(torch.rand(1, 4, *SIZE), torch.randint(0, 3, (1, *SIZE)).to(torch.uint8), ["a"], ["x"])
    assert model.model.has_fitted_head
    assert model(torch.rand(2, 4, 33, 44)).pred_mask.shape == (2, 1, *SIZE)
