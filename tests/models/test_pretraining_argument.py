# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The models' ``pretraining`` argument makes the command line's callback, and is not saved to be run again."""

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from anomalib.engine import Engine
from safetensors.torch import load_file

from anomalib_aoissl import AOISSLRetrieval, AOISSLSegmenter, SegmentationFolder
from anomalib_aoissl.encoder.architecture import DEFAULT_ENCODER, SHIPPED, SHIPPED_TRANSFORMER
from anomalib_aoissl.encoder.options import EncoderOptions
from anomalib_aoissl.plugin.arguments import ArgumentError
from anomalib_aoissl.pretraining import MAEPretraining

pytestmark = pytest.mark.usefixtures("short_fits")

SAID = (
    r"encoder\.architecture=\w+ cannot be pretrained: pretraining=mae needs a vision transformer, .*"
    rf"Write encoder\.architecture={SHIPPED_TRANSFORMER} .*, or leave out pretraining\."
)
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
    untrained = kind(encoder={"pretrained": False}, pretraining="mae", **arguments)  # the architecture is not named
    assert untrained.model.encoder.describe()["architecture"] == SHIPPED_TRANSFORMER
    assert not torch.equal(untrained.model.encoder.vit.blocks[0].mlp.fc1.weight, stored.float())


@pytest.mark.parametrize("kind", [AOISSLRetrieval, AOISSLSegmenter])
@pytest.mark.parametrize(
    "encoder",
    [
        DEFAULT_ENCODER,
        {"architecture": DEFAULT_ENCODER},
        EncoderOptions(DEFAULT_ENCODER),
        {"architecture": "resnet18", "pretrained": False},
    ],
    ids=str,
)
def test_an_encoder_that_is_written_and_cannot_be_pretrained_is_an_error(kind: Any, encoder: object) -> None:
    with pytest.raises(ArgumentError, match=SAID):
        kind(encoder=encoder, pretraining="mae", image_size=(64, 96), visualizer=False)


def command(path: Path, *arguments: str) -> Any:
    """Return anomalib's command line after it made the model."""
    from anomalib.cli import AnomalibCLI

    return AnomalibCLI(["fit", *arguments, "--default_root_dir", str(path)], run=False)


MAE = (
    "--model",
    "AOISSLRetrieval",
    "--model.pretraining",
    "mae",
    "--model.image_size",
    "[64,96]",
    "--data",
    "WireBond",
)


@pytest.mark.parametrize("name", ["--model.encoder", "--model.encoder.architecture"])
def test_the_command_line_tells_a_written_encoder_from_the_default(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    model = command(tmp_path, *MAE).model
    assert model.model.encoder.describe()["architecture"] == SHIPPED_TRANSFORMER
    assert model.written_arguments == {"pretraining", "image_size"}
    with pytest.raises(SystemExit) as caught:
        command(tmp_path, *MAE, name, DEFAULT_ENCODER)
    assert caught.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert re.search(f"AOISSLRetrieval: {SAID}", line)
    assert command(tmp_path, *MAE, name, SHIPPED_TRANSFORMER).model.hparams["pretraining"] == "mae"


@pytest.mark.parametrize("written", [[], ["--model.encoder.mean", "[0.5,0.5,0.5]"]], ids=["no field", "a field"])
def test_the_configuration_that_a_run_saves_names_the_encoder_that_it_took(written: list[str], tmp_path: Path) -> None:
    made = command(tmp_path, *MAE, *written)
    made.parser.save(made.config, tmp_path / "config.yaml", skip_none=False, multifile=False)
    content = yaml.safe_load((tmp_path / "config.yaml").read_text(encoding="utf-8"))
    (tmp_path / "fit.yaml").write_text(yaml.safe_dump(content["fit"]), encoding="utf-8")
    again = command(tmp_path, "--config", str(tmp_path / "fit.yaml")).model
    assert again.hparams["encoder"] == made.model.hparams["encoder"]
    assert again.hparams["encoder"]["architecture"] == SHIPPED_TRANSFORMER


def test_a_parser_that_gives_all_arguments_takes_the_transformer() -> None:
    """A command line without the start-up hook: nobody knows which arguments are defaults."""
    signature = inspect.signature(AOISSLRetrieval).parameters
    arguments = {name: parameter.default for name, parameter in signature.items()}
    model = AOISSLRetrieval(**{**arguments, "pretraining": "mae", "image_size": (64, 96)})
    assert model.model.encoder.describe()["architecture"] == SHIPPED_TRANSFORMER


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
