# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The start-up hook: classes of plugins are there however the host is imported, and it leaves no trace."""

from __future__ import annotations

import ast
import copy
import importlib
import importlib.util
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fake_host import MODELS, PLUGIN_CLASS, ROOT, declare, import_host, install, outcome, run_python

import anomalib_aoissl
from anomalib_aoissl.plugin import autoload as _autoload
from anomalib_aoissl.plugin import registry as _registry

if TYPE_CHECKING:
    from conftest import MakePlugin


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
