# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The models' ``pretraining`` argument makes the command line's callback, and is not saved to be run again."""

from pathlib import Path
from typing import Any

import pytest
import torch
from anomalib.engine import Engine
from safetensors.torch import load_file

from anomalib_aoissl import AOISSLRetrieval, AOISSLSegmenter, SegmentationFolder
from anomalib_aoissl.encoder.architecture import DEFAULT_ENCODER, SHIPPED, SHIPPED_TRANSFORMER
from anomalib_aoissl.pretraining import MAEPretraining

pytestmark = pytest.mark.usefixtures("short_fits")

SMALL = {"objective": "mae", "max_steps": 2, "batch_size": 2, "crops": {"size": 32}}


def make_model(tiny_encoder: dict, pretraining: object) -> AOISSLRetrieval:
    return AOISSLRetrieval(
        encoder={**tiny_encoder, "pretrained": False}, pretraining=pretraining, image_size=(64, 96), visualizer=False
    )


def test_pretraining_changes_the_encoder_before_the_bank_is_filled(
    tiny_encoder: dict, drawn_folder: Path, tmp_path: Path
) -> None:
    model = make_model(tiny_encoder, {**SMALL, "cache_dir": str(tmp_path / "cache")})
    before = model.model.encoder.vit.blocks[0].mlp.fc1.weight.clone()
    assert isinstance(model.configure_callbacks()[0], MAEPretraining)
    data = SegmentationFolder(drawn_folder, num_workers=0, test_ratio=0.25, val_ratio=0.25)
    engine = Engine(default_root_dir=tmp_path, accelerator="cpu", enable_progress_bar=False)
    engine.fit(model, datamodule=data)
    (artefact,) = (tmp_path / "cache").glob("*/model.safetensors")
    kept = (artefact.parent / "pretraining.json").read_text()
    changed = not torch.equal(before, model.model.encoder.vit.blocks[0].mlp.fc1.weight)
    assert changed or "starting weights" in kept
    saved = torch.load(engine.best_model_path, weights_only=True)["hyper_parameters"]
    assert saved["pretraining"] is None
    # the bank's embeddings are the pretrained encoder's
    item = data.train_data[0]
    images = model.pre_processor(item.image[None].as_subclass(torch.Tensor))
    assert model.model(images).pred_score.item() == pytest.approx(0, abs=1e-4)


def test_the_segmenter_starts_from_the_pretrained_encoder(
    tiny_encoder: dict, drawn_folder: Path, tmp_path: Path
) -> None:
    settings = {**SMALL, "cache_dir": str(tmp_path / "cache"), "probe": {"images": 0}}
    model = AOISSLSegmenter(
        encoder={**tiny_encoder, "pretrained": False},
        pretraining=settings,
        image_size=(64, 96),
        training={"select": "last"},
        visualizer=False,
    )
    before = model.encoder.vit.blocks[0].mlp.fc1.weight.clone()
    data = SegmentationFolder(drawn_folder, num_workers=0, test_ratio=0.25, val_ratio=0.25)
    quiet = {"accelerator": "cpu", "enable_progress_bar": False, "limit_val_batches": 0}
    Engine(default_root_dir=tmp_path, max_steps=1, **quiet).fit(model, datamodule=data)
    (artefact,) = (tmp_path / "cache").glob("*/model.safetensors")
    kept = load_file(artefact)["blocks.0.mlp.fc1.weight"]
    assert not torch.equal(before, kept)
    torch.testing.assert_close(model.encoder.vit.blocks[0].mlp.fc1.weight.detach(), kept)


@pytest.mark.parametrize("kind", [AOISSLRetrieval, AOISSLSegmenter])
def test_pretraining_takes_the_transformer_where_no_other_encoder_is_named(kind: type) -> None:
    arguments = {"image_size": (64, 96), "visualizer": False}
    model = kind(pretraining="mae", **arguments)
    assert model.model.encoder.describe()["architecture"] == SHIPPED_TRANSFORMER
    stored = load_file(SHIPPED[SHIPPED_TRANSFORMER])["blocks.0.mlp.fc1.weight"]
    assert torch.equal(model.model.encoder.vit.blocks[0].mlp.fc1.weight, stored.float())
    assert kind(**arguments).model.encoder.describe()["architecture"] == DEFAULT_ENCODER
    other = kind(encoder={"architecture": "resnet18", "pretrained": False}, pretraining="mae", **arguments)
    assert other.model.encoder.describe()["architecture"] == "resnet18"  # the callback says that it cannot train it


def saved_model(kind: Any, path: Path, **arguments: Any) -> dict[str, Any]:
    """Write a checkpoint of a model, and return its content."""
    model = kind(image_size=(64, 96), visualizer=False, **arguments).eval()
    model.set_dataset(["background", "wire"], model.file_format)
    if isinstance(model, AOISSLSegmenter):
        model.model.make_decoder(2)
    content = {"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams), "epoch": 0, "loops": {}}
    content |= {"pytorch-lightning_version": "2.6.0", "global_step": 0}
    model.on_save_checkpoint(content)
    torch.save(content, path)
    return content


@pytest.mark.parametrize("kind", [AOISSLRetrieval, AOISSLSegmenter])
def test_a_checkpoint_keeps_its_encoder_where_pretraining_is_asked_for(
    kind: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = saved_model(kind, tmp_path / "model.ckpt")
    model = kind(pretraining="mae", image_size=(64, 96), visualizer=False)
    assert model.model.encoder.describe()["architecture"] == SHIPPED_TRANSFORMER
    model.on_load_checkpoint(content)
    model.load_state_dict(content["state_dict"])
    loaded = kind.load_from_checkpoint(tmp_path / "model.ckpt", pretraining="mae")
    for found in (model, loaded):
        assert found.model.encoder.describe()["architecture"] == DEFAULT_ENCODER
        assert found.hparams["pretraining"] is None
        assert not any(isinstance(callback, MAEPretraining) for callback in found.configure_callbacks())
    said = "pretraining=mae is left out: the checkpoint brings its encoder along, aoissl_mobilenetv2"
    assert caplog.text.count(said) == 2


def test_a_transformer_of_a_checkpoint_may_be_pretrained_on(tiny_encoder: dict, tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    content = saved_model(AOISSLRetrieval, path, encoder={**tiny_encoder, "pretrained": False})
    model = make_model(tiny_encoder, "mae")
    model.on_load_checkpoint(content)
    for found in (model, AOISSLRetrieval.load_from_checkpoint(path, pretraining="mae")):
        assert isinstance(found.configure_callbacks()[0], MAEPretraining)
    with pytest.raises(ValueError, match=r"model\.ckpt: pretraining='mea' must be one of"):
        AOISSLRetrieval.load_from_checkpoint(path, pretraining="mea")
    with pytest.raises(ValueError, match=r"model\.ckpt: pretraining=3 must be mae, dino or ibot"):
        AOISSLRetrieval.load_from_checkpoint(path, pretraining=3)


def test_what_is_no_objective_raises_at_once(tiny_encoder: dict) -> None:
    with pytest.raises(ValueError, match=r"pretraining='mea' must be one of \['mae', 'dino', 'ibot'\]"):
        make_model(tiny_encoder, "mea")
    with pytest.raises(ValueError, match="arguments are those of MAEPretraining"):
        make_model(tiny_encoder, {"objective": "mae", "epochs": 3})
