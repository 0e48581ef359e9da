# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Plugins in anomalib itself: found by short name, and without the hook by dotted path."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fake_host import DOCUMENT, ROOT, run_python

if TYPE_CHECKING:
    from conftest import MakePlugin


MODEL = """
    from anomalib import LearningType
    from anomalib.engine import Engine  # imports anomalib.models in turn
    from anomalib.models.components import AnomalibModule

    class {name}(AnomalibModule):
        '''Sees nothing.

        Args:
            sharpness: How sharp it sees.
        '''

        def __init__(self, sharpness: float = 0.5) -> None:
            super().__init__(pre_processor=False, post_processor=False, evaluator=False, visualizer=False)
            self.sharpness = sharpness

        @property
        def learning_type(self):
            return LearningType.ONE_CLASS

        @property
        def trainer_arguments(self):
            return {{}}

        def training_step(self, batch, *args, **kwargs):
            return None
"""
DATA = """
    from anomalib.data import Folder

    class FakePlugBond(Folder):
        def __init__(self, wires: int = 4) -> None:
            super().__init__(name="fake", normal_dir="good", root="nowhere")
            self.wires = wires
"""
CALLBACK = """
    from lightning.pytorch.callbacks import Callback

    class FakePlugPretraining(Callback):
        def __init__(self, epochs: int = 3) -> None:
            self.epochs = epochs
"""
DECLARED = """
    [anomalib.models]
    FakePlugRetrieval = fakeplug:FakePlugRetrieval
    Padim = fakeplug.clash:Padim
    Broken = fakeplug.absent:Broken

    [anomalib.data]
    FakePlugBond = fakeplug.data:FakePlugBond

    [anomalib.callbacks]
    FakePlugPretraining = fakeplug.callbacks:FakePlugPretraining
"""
LAZY = """
    def __getattr__(name):
        if name == "FakePlugRetrieval":
            from fakeplug.deep.model import FakePlugRetrieval
            return FakePlugRetrieval
        raise AttributeError(name)
"""


@pytest.fixture
def anomalib_plugin(make_plugin: MakePlugin) -> Path:
    """Install a plugin for anomalib itself."""
    modules = {
        "fakeplug": LAZY,
        "fakeplug.deep": "",
        "fakeplug.deep.model": MODEL.format(name="FakePlugRetrieval"),
        "fakeplug.clash": MODEL.format(name="Padim"),
        "fakeplug.data": DATA,
        "fakeplug.callbacks": CALLBACK,
    }
    return make_plugin("fakeplug", modules, DECLARED)


#: Helpers for code that runs in an interpreter of its own.
HELPERS = """
    import contextlib, io, json

    def shown(*args):
        from anomalib.cli import AnomalibCLI
        out = io.StringIO()
        sys.argv = ["anomalib", *args]  # anomalib's formatter of help reads how much to show from there
        with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
            AnomalibCLI(list(args))
        return " ".join(out.getvalue().split())

    def parsed(*args):
        from anomalib.cli import AnomalibCLI
        return AnomalibCLI(["train", "--data", "MVTecAD", *args], run=False)

    def rejected(*args):
        err = io.StringIO()
        try:
            with contextlib.redirect_stderr(err):
                parsed(*args)
        except SystemExit as stop:
            return stop.code != 0
        return False
"""


def test_plugins_are_found_by_short_name_all_over_anomalib(
    anomalib_plugin: Path, clean_environment: dict[str, str]
) -> None:
    code = (
        HELPERS
        + """
    import anomalib_aoissl.plugin.autoload; anomalib_aoissl.plugin.autoload.install()
    help_ = shown("train", "--help", "-v")
    model_help = shown("train", "--model.help", "FakePlugRetrieval")
    cli = parsed("--model", "FakePlugRetrieval", "--model.sharpness", "0.7", "--trainer.callbacks=FakePlugPretraining",
                 "--trainer.callbacks.epochs=5", "--data", "FakePlugBond", "--data.wires", "6")
    builtin = parsed("--model", "Padim", "--model.pre_trained", "false").model
    from anomalib.data import get_datamodule
    from anomalib.models import get_model, list_models
    named = get_model("fake_plug_retrieval")
    print(json.dumps({
        "help": help_, "model_help": model_help,
        "sharpness": cli.model.sharpness, "class_path": cli.config.train.model.class_path,
        "wires": cli.datamodule.wires,
        "epochs": [c.epochs for c in cli.engine._cache.args["callbacks"] if type(c).__name__ == "FakePlugPretraining"],
        "builtin": type(builtin).__module__,
        "named": type(named).__name__,
        "listed": "fake_plug_retrieval" in list_models(),
        "short": get_model({"class_path": "FakePlugRetrieval", "init_args": {"sharpness": 2.0}}).sharpness,
        "dotted": [type(get_model({"class_path": path})).__name__ for path in (
            "fakeplug.FakePlugRetrieval", "fakeplug.deep.model.FakePlugRetrieval")],
        "data": get_datamodule({"class_path": "FakePlugBond", "init_args": {"wires": 8}}).wires,
        "finders": [type(f).__name__ for f in sys.meta_path if type(f).__name__ == "HostFinder"],
    }))
    """
    )
    state = run_python(code, anomalib_plugin, env=clean_environment)
    assert "fakeplug.FakePlugRetrieval" in state["help"]
    assert "fakeplug.data.FakePlugBond" in state["help"]
    assert "--model.sharpness" in state["model_help"]
    assert "How sharp it sees." in state["model_help"]
    assert (state["sharpness"], state["wires"], state["epochs"]) == (0.7, 6, [5])
    assert state["class_path"] == "fakeplug.FakePlugRetrieval"
    assert state["builtin"] == "anomalib.models.image.padim.lightning_model"
    assert (state["named"], state["listed"]) == ("FakePlugRetrieval", True)
    assert (state["short"], state["data"]) == (2.0, 8)
    assert state["dotted"] == ["FakePlugRetrieval", "FakePlugRetrieval"]
    assert state["finders"] == []
    assert state["stderr"].count("PluginWarning: ") == 2
    assert "Broken = fakeplug.absent:Broken" in state["stderr"]
    assert "No module named 'fakeplug.absent'" in state["stderr"]
    assert "the name 'Padim' is taken by anomalib.models.image.padim.lightning_model.Padim" in state["stderr"]


def test_without_the_hook_dotted_paths_work_and_so_does_the_change_proposed_upstream(
    anomalib_plugin: Path, clean_environment: dict[str, str]
) -> None:
    (change,) = re.findall(r"```python\n# anomalib/models/__init__.py[^\n]*\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    code = (
        HELPERS
        + f"""
    change = {change!r}"""
        + """
    import anomalib_aoissl.plugin.autoload; anomalib_aoissl.plugin.autoload.install()
    short_rejected = rejected("--model", "FakePlugRetrieval")
    cli = parsed("--model", "fakeplug.FakePlugRetrieval", "--data", "fakeplug.data.FakePlugBond",
                 "--trainer.callbacks=fakeplug.callbacks.FakePlugPretraining")
    import anomalib.models
    unpatched = hasattr(anomalib.models, "FakePlugRetrieval")
    exec(compile(change, "change", "exec"), vars(anomalib.models))
    get_model = anomalib.models.get_model
    print(json.dumps({
        "short_rejected": short_rejected, "unpatched": unpatched,
        "dotted": [type(cli.model).__name__, type(cli.datamodule).__name__],
        "patched": [type(get_model({"class_path": path})).__name__ for path in (
            "FakePlugRetrieval", "fakeplug.FakePlugRetrieval", "fakeplug.deep.model.FakePlugRetrieval")],
        "builtin": anomalib.models.Padim.__module__,
    }))
    """
    )
    state = run_python(code, anomalib_plugin, env={**clean_environment, "ANOMALIB_AOISSL_AUTOLOAD": "0"})
    assert state["short_rejected"] is True
    assert state["unpatched"] is False
    assert state["dotted"] == ["FakePlugRetrieval", "FakePlugBond"]
    assert state["patched"] == ["FakePlugRetrieval"] * 3
    assert state["builtin"] == "anomalib.models.image.padim.lightning_model"


def test_document_shows_the_line_of_the_hook_and_the_target_of_the_start_file() -> None:
    text = DOCUMENT.read_text()
    assert (ROOT / "packaging" / "autoload.pth.txt").read_text() in text
    assert (ROOT / "packaging" / "autoload.start.txt").read_text() in text
