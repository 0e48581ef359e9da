# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Arguments that are gone or have other names, and options on the command line and in checkpoints."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser

from anomalib_aoissl import AOISSLRetrieval, AOISSLSegmenter, SegmentationFolder
from anomalib_aoissl.plugin.old_command_lines import with_new_arguments
from anomalib_aoissl.plugin.removed_arguments import had_arguments
from anomalib_aoissl.retrieval.options import VoteOptions


@pytest.fixture
def small(tiny_encoder: dict[str, Any]) -> dict[str, Any]:
    return {"encoder": {**tiny_encoder, "pretrained": False}, "image_size": (64, 96)}


def test_names_of_0_1_0_are_taken_with_a_warning(small: dict[str, Any]) -> None:
    with pytest.warns(DeprecationWarning, match=r"k is vote\.k now, bank_size is bank\.size now") as said:
        model = AOISSLRetrieval(**small, k=30, bank_size=None, context=0, learning_seconds=0)
    assert any("no effect: context, learning_seconds" in str(each.message) for each in said)
    assert model.hparams["vote"]["k"] == 30
    assert model.hparams["bank"]["size"] is None
    with pytest.warns(DeprecationWarning, match=r"select is training\.select now"):
        segmenter = AOISSLSegmenter(**small, select="last")
    assert segmenter.hparams["training"]["select"] == "last"


def test_the_signature_is_that_of_the_class_alone() -> None:
    @had_arguments("old")
    class Some:
        def __init__(self, new: int = 1) -> None:
            self.new = new

    for signature in (inspect.signature(Some), inspect.signature(SegmentationFolder.__init__)):
        assert not {"old", "illuminations"} & set(signature.parameters)
        assert not any(parameter.kind is parameter.VAR_KEYWORD for parameter in signature.parameters.values())
    assert inspect.getfullargspec(Some.__init__).varkw is None  # Lightning filters a checkpoint's arguments by it
    parser = ArgumentParser()
    parser.add_class_arguments(AOISSLRetrieval, "model")
    assert parser.get_defaults().model.vote.k == 15


@pytest.mark.parametrize("model", [AOISSLRetrieval, AOISSLSegmenter])
def test_a_model_takes_15_arguments_at_most(model: type) -> None:
    assert len(inspect.signature(model).parameters) <= 15


# --- command lines ---------------------------------------------------------------------------------------------------

MODEL = ["test", "--model", "AOISSLRetrieval"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (["--model.encoder", "vit_x"], ["--model.encoder.architecture=vit_x"]),
        (["--data=WireBond", "--model.encoder", "vit_x"], ["--data=WireBond", "--model.encoder.architecture=vit_x"]),
        (
            ["--model.encoder", "vit_x", "--model.abstain", "-1", "--flag"],
            ["--model.encoder.architecture=vit_x", "--model.abstain=-1", "--flag"],
        ),
    ],
)
def test_text_beside_a_field_of_the_same_options_becomes_a_field(old: list[str], new: list[str]) -> None:
    import anomalib.models  # noqa: F401 - by which the classes are found

    field = "--model.encoder.pretrained=false"
    assert with_new_arguments([*MODEL, field, *old]) == ["test", "--model=AOISSLRetrieval", field, *new]


@pytest.mark.parametrize(
    "arguments",
    [
        ["test", "--model", "Padim", "--model.k", "1"],
        [*MODEL, "--model.vote.k", "3", "--data=WireBond", "--data.shots", "3"],
        [*MODEL, "--model.encoder", "vit_x", "--model.bank", "{size: 8MB}"],
        ["benchmark", "--config", "a"],
        [],
    ],
)
def test_command_lines_without_old_names_stay_as_they_are(arguments: list[str], capsys: pytest.CaptureFixture) -> None:
    import anomalib.models  # noqa: F401

    assert with_new_arguments(arguments) == arguments
    assert capsys.readouterr().err == ""


def test_the_lighting_channels_of_a_command_line_get_their_new_name(capsys: pytest.CaptureFixture) -> None:
    import anomalib.data  # noqa: F401 - by which the classes are found

    before = ["train", "--model=AOISSLRetrieval", "--data", "SegmentationFolder", "--data.root=a"]
    new = ["train", "--model=AOISSLRetrieval", "--data=SegmentationFolder", "--data.root=a"]
    for name in ("--data.illuminations", "--data.init_args.illuminations"):
        assert with_new_arguments([*before, name, "[_ch0, _ch1]"]) == [*new, "--data.lighting_channels=[_ch0, _ch1]"]
        said = capsys.readouterr().err
        assert said.startswith("warning: SegmentationFolder: old names of arguments, which the next release will not")
        assert said.endswith(": illuminations is lighting_channels now.\n")


def test_the_lighting_channels_of_a_configuration_get_their_new_name(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    from anomalib.cli import AnomalibCLI

    arguments = {"root": str(tmp_path), "illuminations": ["_ch0", "_ch1"]}
    content = {"data": {"class_path": "anomalib_aoissl.SegmentationFolder", "init_args": arguments}}
    (tmp_path / "old.yaml").write_text(yaml.safe_dump(content))
    line = ["--config", str(tmp_path / "old.yaml"), "--model", "AOISSLRetrieval"]
    cli = AnomalibCLI(["test", *line, "--default_root_dir", str(tmp_path)], run=False)
    assert cli.datamodule.lighting_channels == ["_ch0", "_ch1"]
    assert "illuminations is lighting_channels now." in capsys.readouterr().err


# --- checkpoints -----------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(small: dict[str, Any]) -> dict[str, Any]:
    """Return a checkpoint of the vote alone, with k 12 and a bank in half precision."""
    model = AOISSLRetrieval(**small, head=None, vote={"k": 12}, bank={"precision": "fp16", "size": 20}).eval()
    model.set_dataset(["background", "wire"], model.file_format)
    masks = torch.zeros(2, 64, 96, dtype=torch.uint8)
    masks[:, :, 40:] = 1
    model.add(torch.rand(2, 3, 64, 96), masks, ["a", "b"], ["a.png", "b.png"])
    content = {"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams), "epoch": 0, "loops": {}}
    content |= {"pytorch-lightning_version": "2.6.0", "global_step": 0}
    model.on_save_checkpoint(content)
    return content


def test_a_checkpoint_brings_options(saved: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    torch.save(saved, path)
    assert torch.load(path, weights_only=True)  # plain data
    model = AOISSLRetrieval.load_from_checkpoint(path)
    other = AOISSLRetrieval(vote={"temperature": 0.5})
    other.on_load_checkpoint(torch.load(path, weights_only=True))
    assert model.hparams["vote"]["k"] == other.hparams["vote"]["k"] == 12
    assert other.hparams["vote"]["temperature"] == other.model.vote_options.temperature == 0.5
    assert model.hparams["bank"] == {"size": 20, "precision": "fp16", "extends": None}
    assert model.hparams["encoder"]["pretrained"] is False
    assert model.model.bank.embeddings.dtype == torch.float16
    assert len(model.model.bank) == 20


def test_a_checkpoint_of_0_2_0_loads_unless_it_was_saved_with_what_is_gone(
    saved: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "model.ckpt"
    saved["hyper_parameters"]["blocks"] = 1
    saved["hyper_parameters"]["encoder"]["normalize"] = True
    torch.save(saved, path)
    assert len(AOISSLRetrieval.load_from_checkpoint(path).model.bank) == 20
    saved["hyper_parameters"]["blocks"] = [0, 1]
    torch.save(saved, path)
    with pytest.raises(ValueError, match=r"model\.ckpt: was saved with blocks=\[0, 1\], which is gone\. Train again"):
        AOISSLRetrieval.load_from_checkpoint(path)


def test_a_checkpoint_of_0_1_0_is_an_error_in_a_sentence(saved: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    saved["hyper_parameters"] |= {"pretrained": False, "bank": None, "bank_size": 20}
    torch.save(saved, path)
    with pytest.raises(ValueError, match=r"model\.ckpt: was saved by version 0\.1\.0.* Train again"):
        AOISSLRetrieval.load_from_checkpoint(path)


def test_what_is_written_of_options_wins_and_the_other_fields_are_the_checkpoints(
    saved: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "model.ckpt"
    torch.save(saved, path)
    for written in ({"k": 15}, VoteOptions(k=15)):  # 15 is the default
        model = AOISSLRetrieval.load_from_checkpoint(path, vote=written, bank={"size": 15})
        assert model.model.vote_options.k == 15
        assert model.hparams["bank"] == {"size": 15, "precision": "fp16", "extends": None}
        assert model.written_arguments == {"vote.k", "bank.size"}


def test_a_field_that_the_weights_depend_on_cannot_be_written_otherwise(saved: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"saved with vote\.level=patches, but --model\.vote\.level says images"):
        AOISSLRetrieval(vote={"level": "images"}, head=None).on_load_checkpoint(saved)
    with pytest.raises(ValueError, match=r"saved with encoder\.architecture=vit_tiny_patch16_224, but --model\.enc"):
        AOISSLRetrieval(encoder={"architecture": "vit_small_patch16_224", "pretrained": False}).on_load_checkpoint(
            saved
        )


def test_the_command_line_wins_over_a_checkpoint_within_options(saved: dict[str, Any], tmp_path: Path) -> None:
    from anomalib.cli import AnomalibCLI

    line = ["--model", "AOISSLRetrieval", "--model.vote.temperature", "0.02", "--data", "WireBond"]
    cli = AnomalibCLI(["test", *line, "--default_root_dir", str(tmp_path)], run=False)
    assert cli.model.written_arguments == {"vote.temperature"}
    saved["hyper_parameters"]["vote"]["temperature"] = 0.7
    cli.model.on_load_checkpoint(saved)
    assert (cli.model.hparams["vote"]["k"], cli.model.hparams["vote"]["temperature"]) == (12, 0.02)
