# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of the discovery of plugins, with fake plugins in a fake host and in anomalib itself."""

from __future__ import annotations

import ast
import copy
import importlib
import importlib.util
import json
import re
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

import anomalib_aoissl
from anomalib_aoissl import __main__ as report
from anomalib_aoissl.plugin import autoload as _autoload
from anomalib_aoissl.plugin import registry as _registry

if TYPE_CHECKING:
    from conftest import MakePlugin

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "discovery.md"
MODELS = "fakehost.models"
PLUGIN_CLASS = "from fakehost.base import Base\nclass {name}(Base):\n    pass\n"
HOST = {
    "fakehost.base": "class Base:\n    pass\n",
    MODELS: """
        from fakehost.base import Base
        ALLOWED_MODULES = {"fakehost.models"}
        class Builtin(Base):
            pass
        def get_model():
            pass
    """,
    "fakehost.engine": "from fakehost import models\nclass Engine:\n    pass\n",
}


@pytest.fixture
def site(make_plugin: MakePlugin, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Install the fake host in a folder on ``sys.path`` and undo all that the hook does."""
    folder = make_plugin("fakehost", HOST, "")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    monkeypatch.setattr(_autoload, "_installed", [])
    monkeypatch.setattr(_registry, "_plugins", {})
    monkeypatch.setitem(_registry.RULES, MODELS, _registry.Rule("Base", direct=True, fold_case=True))
    monkeypatch.delenv(_autoload.SWITCH, raising=False)
    yield folder
    for name in [name for name in sys.modules if name.split(".")[0].startswith(("fakehost", "fakeplug"))]:
        del sys.modules[name]


def install() -> None:
    """Install the hook for the fake host."""
    _autoload.install([MODELS], ["fakehost.engine"])


def import_host() -> ModuleType:
    """Import the fake host, as a program would."""
    importlib.invalidate_caches()
    return importlib.import_module(MODELS)


def outcome(name: str) -> tuple[str, str]:
    """Return the status of a plugin and the reason for it."""
    (plugin,) = [plugin for plugin in _registry.plugins(MODELS) if plugin.name == name]
    return plugin.status, plugin.reason


def declare(*lines: str) -> str:
    """Return an ``entry_points.txt`` with these lines in the group of the fake host."""
    return f"[{MODELS}]\n" + "\n".join(lines)


@pytest.fixture
def good(site: Path, make_plugin: MakePlugin) -> Path:
    """Install one faultless plugin."""
    modules = {"fakeplug.deep.model": PLUGIN_CLASS.format(name="Good"), "fakeplug.deep": ""}
    return make_plugin("fakeplug", modules, declare("Good = fakeplug.deep.model:Good"))


@pytest.mark.usefixtures("good")
def test_host_first_registers_the_class_and_leaves_no_trace_of_the_hook() -> None:
    before = list(sys.meta_path)
    install()
    assert len(sys.meta_path) == len(before) + 1
    host = import_host()
    assert host.Good is sys.modules["fakeplug.deep.model"].Good
    assert host.ALLOWED_MODULES == {MODELS, "fakeplug.deep.model"}
    assert outcome("Good") == ("registered", "")
    assert sys.meta_path == before
    assert type(host.__loader__).__name__ == type(host.__spec__.loader).__name__ == "SourceFileLoader"


@pytest.mark.usefixtures("good")
def test_plugin_first_registers_the_class_although_it_was_half_imported() -> None:
    install()
    importlib.invalidate_caches()
    source = Path(importlib.util.find_spec("fakeplug.deep.model").origin)
    source.write_text("import fakehost.models\n" + source.read_text())
    plugin = importlib.import_module("fakeplug.deep.model")
    host = sys.modules[MODELS]
    assert "Good" not in vars(host)
    assert "fakeplug.deep.model" in host.ALLOWED_MODULES
    assert host.Good is plugin.Good
    assert "Good" in vars(host)
    assert outcome("Good") == ("registered", "")
    with pytest.raises(AttributeError, match=r"module 'fakehost.models' has no attribute 'Absent'"):
        _ = host.Absent


@pytest.mark.usefixtures("good")
def test_waiting_keeps_the_hosts_own_module_getattr_in_use(site: Path) -> None:
    path = site / "fakehost" / "models.py"
    path.write_text(path.read_text() + "\ndef __getattr__(name):\n    return f'own {name}'\n")
    source = site / "fakeplug" / "deep" / "model.py"
    source.write_text("import fakehost.models\n" + source.read_text())
    install()
    importlib.invalidate_caches()
    plugin = importlib.import_module("fakeplug.deep.model")
    assert sys.modules[MODELS].Good is plugin.Good
    assert sys.modules[MODELS].Absent == "own Absent"


@pytest.mark.usefixtures("good")
def test_hook_that_comes_after_the_host_registers_at_once() -> None:
    host = import_host()
    assert not hasattr(host, "Good")
    before = list(sys.meta_path)
    install()
    assert host.Good.__module__ == "fakeplug.deep.model"
    assert sys.meta_path == before


@pytest.mark.usefixtures("good")
def test_probe_before_the_import_neither_breaks_nor_consumes_the_hook() -> None:
    install()
    importlib.invalidate_caches()
    spec: Any = importlib.util.find_spec(MODELS)
    assert spec.origin.endswith("models.py")
    loader: Any = spec.loader
    assert "class Builtin(Base)" in loader.get_source(MODELS)
    assert copy.copy(loader).path == spec.origin
    assert hasattr(import_host(), "Good")


@pytest.mark.usefixtures("good")
def test_installing_twice_puts_one_finder_in_place() -> None:
    before = len(sys.meta_path)
    install()
    install()
    assert len(sys.meta_path) == before + 1
    assert hasattr(import_host(), "Good")


@pytest.mark.usefixtures("good")
def test_two_hooks_for_one_host_do_not_ask_each_other_for_ever() -> None:
    for _ in range(2):
        sys.meta_path.insert(0, _autoload.HostFinder([MODELS]))
    assert hasattr(import_host(), "Good")


@pytest.mark.usefixtures("good")
def test_switch_keeps_the_hook_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANOMALIB_AOISSL_AUTOLOAD", "0")
    before = list(sys.meta_path)
    install()
    assert sys.meta_path == before
    assert not hasattr(import_host(), "Good")


def test_plugin_may_import_the_module_that_imports_the_host(site: Path, make_plugin: MakePlugin) -> None:
    source = (
        "import fakehost.base\nfakehost.base.tries = getattr(fakehost.base, 'tries', 0) + 1\n"
        "from fakehost.engine import Engine\n" + PLUGIN_CLASS.format(name="Good")
    )
    make_plugin("fakeplug", {"fakeplug.m": source}, declare("Good = fakeplug.m:Good"))
    install()
    importlib.invalidate_caches()
    engine = importlib.import_module("fakehost.engine")
    assert engine.models.Good.__module__ == "fakeplug.m"
    assert sys.modules["fakeplug.m"].Engine is engine.Engine
    # Not imported in vain before, when the engine was half executed.
    assert sys.modules["fakehost.base"].tries == 1


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("import fakeplug_is_not_installed", "ModuleNotFoundError: No module named 'fakeplug_is_not_installed'"),
        ("raise SystemExit('gone')", "SystemExit: gone"),
        ("def broken(:", "SyntaxError: "),
        ("", "AttributeError: module 'fakeplug.bad' has no attribute 'Bad'"),
    ],
)
@pytest.mark.usefixtures("good")
def test_failing_plugin_is_one_warning_and_the_rest_goes_on(make_plugin: MakePlugin, source: str, error: str) -> None:
    make_plugin("fakeplug_bad", {}, declare("Bad = fakeplug.bad:Bad"), version="2.5")
    (Path(sys.path[0]) / "fakeplug" / "bad.py").write_text(source)
    install()
    with pytest.warns(_registry.PluginWarning) as caught:
        host = import_host()
    (warning,) = [str(item.message) for item in caught if item.category is _registry.PluginWarning]
    assert "Bad = fakeplug.bad:Bad (fakehost.models, package fakeplug_bad 2.5)" in warning
    assert error in warning
    status, reason = outcome("Bad")
    assert status == "failed"
    assert error in reason
    assert not hasattr(host, "Bad")
    assert hasattr(host, "Good")


@pytest.mark.usefixtures("good")
def test_warnings_as_errors_do_not_reach_the_import_of_the_host(
    make_plugin: MakePlugin, capsys: pytest.CaptureFixture[str]
) -> None:
    make_plugin("fakeplug_bad", {}, declare("Bad = fakeplug_bad.absent:Bad"))
    install()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        host = import_host()
    assert hasattr(host, "Good")
    assert "anomalib plugin Bad = fakeplug_bad.absent:Bad" in capsys.readouterr().err


@pytest.mark.usefixtures("good")
def test_interrupt_by_the_user_is_not_swallowed(site: Path) -> None:
    (site / "fakeplug" / "deep" / "model.py").write_text("raise KeyboardInterrupt")
    install()
    with pytest.raises(KeyboardInterrupt):
        import_host()


@pytest.mark.usefixtures("good")
def test_fault_of_the_registry_itself_is_a_line_on_standard_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(groups: object) -> None:
        msg = "no metadata today"
        raise OSError(msg)

    monkeypatch.setattr(_registry, "register", fail)
    install()
    assert hasattr(import_host(), "Builtin")
    assert capsys.readouterr().err == "anomalib_aoissl: OSError: no metadata today\n"


def test_complaint_survives_a_missing_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    _autoload.complain("nobody hears this")


@pytest.mark.parametrize(
    ("name", "owner"),
    [
        ("Builtin", "fakehost.models.Builtin"),
        ("BUILTIN", "fakehost.models.Builtin"),  # get_model compares in lower case
        ("get_model", "fakehost.models.get_model"),
    ],
)
@pytest.mark.usefixtures("site")
def test_name_of_a_builtin_is_rejected_and_the_plugin_not_even_imported(
    make_plugin: MakePlugin, name: str, owner: str
) -> None:
    modules = {"fakeplug.clash": PLUGIN_CLASS.format(name=name)}
    make_plugin("fakeplug", modules, declare(f"{name} = fakeplug.clash:{name}"))
    install()
    with pytest.warns(_registry.PluginWarning, match=f"the name '{name}' is taken by {re.escape(owner)}; rename"):
        host = import_host()
    assert host.Builtin.__module__ == MODELS
    assert host.get_model.__module__ == MODELS
    assert "fakeplug.clash" not in sys.modules
    assert outcome(name)[0] == "rejected"
    assert host.ALLOWED_MODULES == {MODELS}


@pytest.mark.usefixtures("good")
def test_second_package_with_a_name_is_rejected_and_not_imported(make_plugin: MakePlugin) -> None:
    make_plugin("fakeplug_z", {"fakeplug_z.m": PLUGIN_CLASS.format(name="Good")}, declare("Good = fakeplug_z.m:Good"))
    install()
    with pytest.warns(_registry.PluginWarning, match=r"taken by fakeplug.deep.model:Good of package fakeplug;"):
        host = import_host()
    assert host.Good.__module__ == "fakeplug.deep.model"
    assert "fakeplug_z.m" not in sys.modules


BASE = "from fakehost.base import Base\n"


@pytest.mark.parametrize(
    ("declared", "source", "reason"),
    [
        ("Bad = fakeplug.m:Bad", "Bad = 3", "it is no class but a int"),
        ("Bad = fakeplug.m:Bad", "class Bad: pass", "it is no subclass of fakehost.base.Base"),
        (
            "Bad = fakeplug.m:Bad",
            f"{BASE}class Parent(Base): pass\nclass Bad(Parent): pass",
            "it is no direct subclass of Base (its bases: Parent)",
        ),
        (
            "Bad = fakeplug.m:Bad",
            f"import abc\n{BASE}class Bad(Base, abc.ABC):\n    @abc.abstractmethod\n    def see(self): ...",
            "it is abstract: see must be implemented",
        ),
        ("Bad = fakeplug.m:Bad", f"{BASE}class Other(Base): pass\nBad = Other", "the class is called 'Other'"),
        (
            "Bad = fakeplug.m:Bad",
            f"{BASE}class Bad(Base): __module__ = 'elsewhere'",
            "elsewhere.Bad is not this class",
        ),
        ("_Bad = fakeplug.m:_Bad", f"{BASE}class _Bad(Base): pass", "its path fakeplug.m._Bad is private"),
        ("Bad = fakeplug.m:Other", "", "its name 'Bad' differs from the class name 'Other'"),
        ("Bad = fakeplug.m", "", "its value 'fakeplug.m' is not of the form 'package.module:Class'"),
        ("Bad = fakeplug.m:Outer.Bad", "", "is not of the form 'package.module:Class'"),
    ],
)
@pytest.mark.usefixtures("site")
def test_class_that_the_host_would_not_find_is_rejected_with_the_reason(
    make_plugin: MakePlugin, declared: str, source: str, reason: str
) -> None:
    make_plugin("fakeplug", {"fakeplug.m": source}, declare(declared))
    install()
    with pytest.warns(_registry.PluginWarning, match=re.escape(reason)):
        host = import_host()
    name = declared.partition(" ")[0]
    assert not hasattr(host, name)
    status, given = outcome(name)
    assert status == "rejected"
    assert reason in given


@pytest.mark.usefixtures("site")
def test_public_name_for_a_private_module_makes_the_class_eligible(make_plugin: MakePlugin) -> None:
    modules = {"fakeplug": "from fakeplug._m import Good", "fakeplug._m": PLUGIN_CLASS.format(name="Good")}
    make_plugin("fakeplug", modules, declare("Good = fakeplug:Good"))
    install()
    host = import_host()
    assert outcome("Good") == ("registered", "")
    assert host.ALLOWED_MODULES == {MODELS, "fakeplug", "fakeplug._m"}


@pytest.mark.usefixtures("site")
def test_module_that_is_declared_is_allowed_wherever_the_class_is_defined(make_plugin: MakePlugin) -> None:
    modules = {"fakeplug.core": PLUGIN_CLASS.format(name="Good"), "fakeplug.api": "from fakeplug.core import Good"}
    make_plugin("fakeplug", modules, declare("Good = fakeplug.api:Good"))
    install()
    assert import_host().ALLOWED_MODULES == {MODELS, "fakeplug.api", "fakeplug.core"}


@pytest.mark.usefixtures("good")
def test_name_that_the_host_loads_lazily_is_taken_too(site: Path) -> None:
    path = site / "fakehost" / "models.py"
    path.write_text(path.read_text() + "\n__all__ = ['Good']\n")
    install()
    with pytest.warns(_registry.PluginWarning, match=r"the name 'Good' is taken by fakehost.models.Good"):
        import_host()
    assert "fakeplug.deep.model" not in sys.modules


@pytest.mark.usefixtures("good")
def test_package_with_unreadable_metadata_does_not_hide_the_others(
    make_plugin: MakePlugin, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_plugin("fakeplug_unreadable", {}, "")
    (folder / "fakeplug_unreadable-1.0.dist-info" / "entry_points.txt").write_bytes(b"\xff\xfe[group]\n")
    install()
    assert hasattr(import_host(), "Good")
    assert "the entry points of fakeplug_unreadable cannot be read" in capsys.readouterr().err


@pytest.mark.usefixtures("good")
def test_host_that_fails_to_import_fails_as_without_the_hook_and_may_be_tried_again(site: Path) -> None:
    path = site / "fakehost" / "models.py"
    source = path.read_text()
    path.write_text("raise ImportError('host is broken')")
    install()
    with pytest.raises(ImportError, match="host is broken"):
        import_host()
    path.write_text(source + "# one line more, lest the cached bytecode pass for it\n")
    assert hasattr(import_host(), "Good")


@pytest.mark.usefixtures("good")
def test_host_without_its_base_class_rejects_all_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_registry.RULES, MODELS, _registry.Rule("Renamed"))
    install()
    with pytest.warns(_registry.PluginWarning, match=r"this version of anomalib has no class fakehost.models.Renamed"):
        import_host()


@pytest.fixture
def reported(site: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have the report look at the fake host."""
    monkeypatch.setattr(_autoload, "HOSTS", (MODELS,))
    return site


@pytest.mark.usefixtures("good", "reported")
def test_report_is_a_table_and_exits_with_zero_when_all_is_well(capsys: pytest.CaptureFixture[str]) -> None:
    install()
    assert report.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "hook: in use"
    assert lines[2].split() == ["GROUP", "CLASS", "FROM", "PACKAGE", "STATUS"]
    assert lines[3].split() == [MODELS, "Good", "fakeplug.deep.model:Good", "fakeplug", "1.0", "registered"]
    assert lines[2].index("STATUS") == lines[3].index("registered")


@pytest.mark.usefixtures("good", "reported")
def test_report_names_the_failure_without_a_warning_and_exits_with_one(
    make_plugin: MakePlugin, capsys: pytest.CaptureFixture[str]
) -> None:
    make_plugin("fakeplug_bad", {}, declare("Bad = fakeplug_bad.absent:Bad"), version="0.3")
    install()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert report.main() == 1
    captured = capsys.readouterr()
    assert [str(warning.message) for warning in caught] == []
    assert captured.err == ""
    assert re.search(
        r"Bad +fakeplug_bad.absent:Bad +fakeplug_bad 0.3 +failed: its import failed with ModuleNotFoundError: ",
        captured.out,
    )


@pytest.mark.usefixtures("reported")
def test_report_of_a_host_that_cannot_be_imported(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (site / "fakehost" / "models.py").write_text("raise ImportError('host is broken')")
    install()
    assert report.main() == 1
    out = capsys.readouterr().out
    assert "fault: fakehost.models cannot be imported: ImportError: host is broken" in out


@pytest.mark.usefixtures("good", "reported")
def test_report_says_that_the_hook_is_off(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(_autoload.SWITCH, "0")
    install()
    assert report.main() == 1
    out = capsys.readouterr().out
    assert "hook: off, since ANOMALIB_AOISSL_AUTOLOAD=0; unset it" in out
    assert "fakeplug 1.0  not registered: the hook is not in use" in out
    assert MODELS not in sys.modules


@pytest.mark.usefixtures("reported")
def test_report_of_a_hook_that_is_off_exits_with_one_even_without_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(_autoload.SWITCH, "0")
    assert report.main() == 1


@pytest.mark.usefixtures("reported")
def test_report_says_that_nothing_is_installed(capsys: pytest.CaptureFixture[str]) -> None:
    install()
    assert report.main() == 0
    assert capsys.readouterr().out.endswith("no plugin is installed\n")


def run_python(code: str, *paths: Path, env: dict[str, str], options: tuple[str, ...] = ()) -> dict:
    """Run code in an interpreter of its own and return the JSON on its last line of output."""
    preamble = "".join(f"sys.path.insert(0, {str(path)!r})\n" for path in [ROOT, *paths])
    command = [sys.executable, *options, "-c", f"import sys\n{preamble}{textwrap.dedent(code)}"]
    result = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return {**json.loads(result.stdout.splitlines()[-1]), "stderr": result.stderr}


def test_start_up_imports_the_modules_of_the_hook_and_no_other(clean_environment: dict[str, str]) -> None:
    code = """
        import os  # `site` has it loaded at every start; -S leaves that out
        before = set(sys.modules)
        import anomalib_aoissl.plugin.autoload; anomalib_aoissl.plugin.autoload.install()
        new = sorted(set(sys.modules) - before)
        import json
        print(json.dumps({"new": new}))
    """
    state = run_python(code, env=clean_environment, options=("-S",))
    assert state["new"] == ["anomalib_aoissl", "anomalib_aoissl.plugin", "anomalib_aoissl.plugin.autoload"]
    assert state["stderr"] == ""


def test_public_names_are_the_same_at_run_time_and_for_type_checkers() -> None:
    tree = ast.parse((ROOT / "anomalib_aoissl" / "__init__.py").read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    checked = {alias.asname: node.module for node in imports for alias in node.names if alias.asname}
    assert checked == anomalib_aoissl._EXPORTS
    assert set(anomalib_aoissl.__all__) == {*checked, "__version__"}
    assert set(anomalib_aoissl.__all__) <= set(dir(anomalib_aoissl))


def test_unknown_public_name_is_an_attribute_error_that_lists_the_known_ones() -> None:
    with pytest.raises(AttributeError, match=r"has no attribute 'Absent'; its public names are AOISSLRetrieval, "):
        _ = anomalib_aoissl.Absent


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
