# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Arguments of 0.1.0 that are gone or have other names: taken for one release, with a warning."""

import copy
import inspect
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser

from anomalib_aoissl import AOISSLRetrieval, AOISSLSegmenter
from anomalib_aoissl.plugin.old_command_lines import with_new_arguments
from anomalib_aoissl.plugin.removed_arguments import moved_in, removed_from, takes_removed
from anomalib_aoissl.retrieval.options import BankOptions, VoteOptions


@pytest.fixture
def small(tiny_encoder: dict[str, Any]) -> dict[str, Any]:
    return {"encoder": {**tiny_encoder, "pretrained": False}, "image_size": (64, 96)}


def warned(make: Any, **arguments: Any) -> tuple[Any, str]:
    """Return what is made, and the one warning of it, which names this file."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DeprecationWarning)
        made = make(**arguments)
    (warning,) = [w for w in caught if "AOISSL" in str(w.message)]
    assert warning.category is DeprecationWarning
    assert warning.filename == __file__
    return made, str(warning.message)


def test_code_of_0_1_0_runs_with_one_warning_that_names_all_that_is_gone(small: dict[str, Any]) -> None:
    model, message = warned(AOISSLRetrieval, **small, learning_seconds=0, context=0.6, bank_shifts=None)
    assert "gone and have no effect: bank_shifts, context, learning_seconds." in message
    assert not set(model.hparams) & set(removed_from(AOISSLRetrieval))


def test_old_names_have_the_effect_of_the_new_ones(tiny_encoder: dict[str, Any], tmp_path: Path) -> None:
    old = {
        "pretrained": False,
        "normalize": False,
        "k": 7,
        "temperature": 0.5,
        "aggregation": "similarity",
        "retrieval": "images",
        "search": "exact",
        "bank": tmp_path / "a.safetensors",
        "bank_size": "2MB",
        "bank_precision": "fp16",
    }
    assert set(old) == set(moved_in(AOISSLRetrieval))
    model, message = warned(AOISSLRetrieval, encoder=tiny_encoder, image_size=(64, 96), head=None, **old)
    for name, new in moved_in(AOISSLRetrieval).items():
        assert f"{name} is {new} now" in message
    assert model.hparams["vote"] == {
        "k": 7,
        "temperature": 0.5,
        "aggregation": "similarity",
        "level": "images",
        "search": "exact",
    }
    assert model.hparams["bank"] == {"size": "2MB", "precision": "fp16", "extends": str(tmp_path / "a.safetensors")}
    assert model.hparams["encoder"]["architecture"] == tiny_encoder["architecture"]
    assert model.model.encoder.normalize is False
    assert model.written_arguments == {
        "head",
        "image_size",
        "encoder.architecture",
        "encoder.model_args",
        *moved_in(AOISSLRetrieval).values(),
    }


def test_old_names_of_the_segmenter(tiny_encoder: dict[str, Any]) -> None:
    arguments = {"encoder": tiny_encoder, "image_size": (64, 96), "pretrained": False}
    model, message = warned(AOISSLSegmenter, **arguments, learning_rate=1e-3, budget=9, select="last", validations=3)
    assert "budget is training.budget now" in message
    expected = {"learning_rate": 1e-3, "validations": 3, "early_stopping": None, "select": "last", "budget": 9}
    assert model.hparams["training"] == expected


def test_a_new_name_wins_over_an_old_one_beside_it(small: dict[str, Any]) -> None:
    model, _ = warned(AOISSLRetrieval, **small, k=7, temperature=0.3, vote=VoteOptions(k=9))
    assert (model.hparams["vote"]["k"], model.hparams["vote"]["temperature"]) == (9, 0.3)


def test_new_names_warn_of_nothing(small: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        AOISSLRetrieval(**small, vote={"k": 7}, bank=BankOptions(size=50))


def test_other_unknown_arguments_are_errors(tiny_encoder: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="learning_minutes"):
        AOISSLRetrieval(encoder=tiny_encoder, learning_minutes=0)  # type: ignore[call-arg]


def test_the_signature_is_that_of_the_class_alone() -> None:
    @takes_removed("old")
    def init(self: Any, new: int = 1) -> None:
        self.new = new

    for signature in (inspect.signature(init), inspect.signature(AOISSLRetrieval.__init__)):
        assert "old" not in signature.parameters
        assert not {"context", "k"} & set(signature.parameters)
        assert not any(parameter.kind is parameter.VAR_KEYWORD for parameter in signature.parameters.values())
    assert inspect.getfullargspec(init).varkw is None  # Lightning filters a checkpoint's arguments by it
    parser = ArgumentParser()
    parser.add_class_arguments(AOISSLRetrieval, "model")
    assert parser.get_defaults().model.vote.k == 15
    assert not {"context", "k"} & set(vars(parser.get_defaults().model))


@pytest.mark.parametrize("model", [AOISSLRetrieval, AOISSLSegmenter])
def test_a_model_takes_15_arguments_at_most(model: type) -> None:
    assert len(inspect.signature(model).parameters) <= 15


# --- command lines ---------------------------------------------------------------------------------------------------

MODEL = ["test", "--model", "AOISSLRetrieval"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (["--model.k", "12"], ["--model.vote.k=12"]),
        (["--model.init_args.k=12"], ["--model.vote.k=12"]),
        (["--model.bank=a.ckpt", "--model.bank_size", "8MB"], ["--model.bank.extends=a.ckpt", "--model.bank.size=8MB"]),
        (
            ["--model.encoder", "vit_x", "--model.pretrained=false"],
            ["--model.encoder.architecture=vit_x", "--model.encoder.pretrained=false"],
        ),
        (["--model.k=1", "--model.abstain", "-1", "--flag"], ["--model.vote.k=1", "--model.abstain=-1", "--flag"]),
        (["--data", "WireBond", "--data.k", "3", "--model.k=1"], ["--data=WireBond", "--data.k=3", "--model.vote.k=1"]),
    ],
)
def test_a_command_line_gets_the_new_names(old: list[str], new: list[str], capsys: pytest.CaptureFixture) -> None:
    import anomalib.models  # noqa: F401 - by which the classes are found

    assert with_new_arguments([*MODEL, *old]) == ["test", "--model=AOISSLRetrieval", *new]
    assert capsys.readouterr().err.startswith("warning: AOISSLRetrieval: old names of arguments")


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


def test_a_configuration_of_0_1_0_gets_the_new_names(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    from anomalib.cli import AnomalibCLI

    arguments = {"encoder": "vit_tiny_patch16_224", "pretrained": False, "k": 9, "bank_size": "8MB", "image_size": 64}
    content = {"model": {"class_path": "anomalib_aoissl.AOISSLRetrieval", "init_args": arguments}}
    (tmp_path / "old.yaml").write_text(yaml.safe_dump(content))
    line = ["--config", str(tmp_path / "old.yaml"), "--model.temperature=0.1", "--data", "WireBond"]
    cli = AnomalibCLI(["test", *line, "--default_root_dir", str(tmp_path)], run=False)
    values = cli.model.hparams
    assert (values["vote"]["k"], values["vote"]["temperature"], values["bank"]["size"]) == (9, 0.1, "8MB")
    assert values["encoder"]["architecture"] == "vit_tiny_patch16_224"
    expected = {"encoder.architecture", "encoder.pretrained", "vote.k", "vote.temperature", "bank.size", "image_size"}
    assert cli.model.written_arguments == expected
    said = capsys.readouterr().err
    assert "warning: AOISSLRetrieval: old names of arguments" in said
    assert "k is vote.k now, bank_size is bank.size now." in said


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


def of_0_1_0(content: dict[str, Any]) -> dict[str, Any]:
    """Return a checkpoint with its arguments as version 0.1.0 wrote them."""
    old = copy.deepcopy(content)
    arguments = old["hyper_parameters"]
    encoder, vote, bank = (arguments.pop(name) for name in ("encoder", "vote", "bank"))
    arguments |= {"retrieval": vote.pop("level"), **vote}
    arguments |= {"bank_size": bank["size"], "bank_precision": bank["precision"], "bank": None}
    arguments |= {"pretrained": encoder.pop("pretrained"), "normalize": encoder.pop("normalize"), "encoder": encoder}
    return old


@pytest.mark.parametrize("form", ["old", "new"])
def test_checkpoints_of_both_forms_give_the_same_model(form: str, saved: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    torch.save(of_0_1_0(saved) if form == "old" else saved, path)
    assert torch.load(path, weights_only=True)  # plain data
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        model = AOISSLRetrieval.load_from_checkpoint(path)
        other = AOISSLRetrieval(vote={"temperature": 0.5})
        other.on_load_checkpoint(torch.load(path, weights_only=True))
    assert model.hparams["vote"]["k"] == other.hparams["vote"]["k"] == 12
    assert other.hparams["vote"]["temperature"] == other.model.vote_options.temperature == 0.5
    assert model.hparams["bank"] == {"size": 20, "precision": "fp16", "extends": None}
    assert model.hparams["encoder"]["pretrained"] is False
    assert model.model.bank.embeddings.dtype == torch.float16
    assert len(model.model.bank) == 20


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
    model, message = warned(AOISSLRetrieval.load_from_checkpoint, checkpoint_path=path, k=5)
    assert model.model.vote_options.k == 5
    assert "k is vote.k now" in message


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
