# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Arguments of the pretraining callbacks of 0.2.0: taken for one release, with a warning."""

import inspect
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml

from anomalib_aoissl.plugin.old_command_lines import with_new_arguments
from anomalib_aoissl.plugin.options import flat
from anomalib_aoissl.plugin.removed_arguments import moved_in, removed_from
from anomalib_aoissl.pretraining import DINOPretraining, IBOTPretraining, MAEPretraining, make_pretraining

CALLBACKS = (MAEPretraining, DINOPretraining, IBOTPretraining)

VALUES: dict[str, Any] = {"num_workers": 3, "zoom": (0.5, 2.0), "global_zoom": (0.5, 2.0)}
VALUES |= dict.fromkeys(("crop_size", "global_size", "local_size", "decoder_dims", "memory_mb", "probe_every"), 24)


@pytest.mark.parametrize("callback", CALLBACKS)
def test_a_callback_takes_15_arguments_at_most(callback: type) -> None:
    assert len(inspect.signature(callback).parameters) <= 15


@pytest.mark.parametrize("callback", CALLBACKS)
def test_old_names_have_the_effect_of_the_new_ones_and_others_none(callback: Any) -> None:
    moved = {name: VALUES.get(name, 1) for name in moved_in(callback)}
    with pytest.warns(DeprecationWarning, match="Pretraining: ") as caught:
        made = callback(**moved, **dict.fromkeys(removed_from(callback), 0))
    gone, old = (str(warning.message) for warning in caught)
    assert all(name in gone for name in removed_from(callback))
    options = flat({name: vars(getattr(made, name)) for name, rule in callback.RULES.items() if hasattr(rule, "short")})
    for name, new in moved_in(callback).items():
        assert f"{name} is {new} now" in old
        assert options[new] == moved[name]


def test_new_names_warn_of_nothing_and_win_over_old_ones() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        MAEPretraining(crops={"size": 64}, optimizer={"learning_rate": 0.1})
    old: dict[str, Any] = {"crop_size": 32, "zoom": (0.5, 2.0)}
    with pytest.warns(DeprecationWarning, match="crop_size is crops.size now, zoom is crops.zoom now"):
        made = MAEPretraining(crops={"size": 64}, **old)
    assert (made.crops.size, made.crops.zoom) == (64, (0.5, 2.0))


def test_the_argument_of_a_model_takes_old_names() -> None:
    with pytest.warns(DeprecationWarning, match="crops_per_image is crops.per_image now"):
        made = make_pretraining({"objective": "dino", "crops_per_image": 2, "learning_rate": "1e-3"})
    assert isinstance(made, DINOPretraining)
    assert (made.crops.per_image, made.optimizer.learning_rate) == (2, 1e-3)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (["--trainer.callbacks=MAEPretraining", "--trainer.callbacks.gain", "1"], ["--trainer.callbacks.light.gain=1"]),
        (["--trainer.callbacks+", "IBOTPretraining", "--trainer.callbacks.global_zoom=[0.5,2]"],
         ["--trainer.callbacks.crops.zoom=[0.5,2]"]),
        (["--trainer.callbacks+=DINOPretraining", "--trainer.callbacks.init_args.gain=1", "--trainer.callbacks+=Other",
          "--trainer.callbacks.gain=2"],
         ["--trainer.callbacks.light.gain=1", "--trainer.callbacks+=Other", "--trainer.callbacks.gain=2"]),
    ],
)  # fmt: skip
def test_a_command_line_gets_the_new_names(old: list[str], new: list[str], capsys: pytest.CaptureFixture) -> None:
    import anomalib.callbacks  # noqa: F401 - by which the classes are found

    assert with_new_arguments(["train", *old])[2:] == new
    assert "warning: " in capsys.readouterr().err


def test_a_command_line_shows_old_names_in_the_argument_of_a_model(tmp_path: Path) -> None:
    from anomalib.cli import AnomalibCLI

    model = ["--model", "AOISSLRetrieval", "--data", "WireBond", "--default_root_dir", str(tmp_path)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")  # as Python does with those of modules
        AnomalibCLI(["train", *model, '--model.pretraining={"objective": "mae", "crop_size": 64}'], run=False)
    (warning,) = caught
    assert str(warning.message).startswith("MAEPretraining: old names of arguments")


def test_files_of_0_2_0_get_the_new_names(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    from anomalib.cli import AnomalibCLI

    arguments = {"max_epochs": 3, "crop_size": 64, "probe_every": 2, "learning_rate": 0.001}
    node = {"class_path": "anomalib_aoissl.pretraining.MAEPretraining", "init_args": arguments}
    (tmp_path / "mae.yaml").write_text(yaml.safe_dump(node))
    (tmp_path / "all.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [node]}}))
    model = ["--model", "AOISSLRetrieval", "--data", "WireBond", "--default_root_dir", str(tmp_path)]
    for given in (["--trainer.callbacks", str(tmp_path / "mae.yaml")], ["--config", str(tmp_path / "all.yaml")]):
        cli = AnomalibCLI(["train", *given, *model], run=False)
        made = cli.config_init.train.trainer.callbacks
        callback = made[0] if isinstance(made, list) else made
        assert isinstance(callback, MAEPretraining)
        found = (callback.max_epochs, callback.crops.size, callback.probe.every, callback.optimizer.learning_rate)
        assert found == (3, 64, 2, 0.001)
        assert "crop_size is crops.size now" in capsys.readouterr().err
