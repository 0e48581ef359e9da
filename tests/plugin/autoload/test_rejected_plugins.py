# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Plugins that a host would not find are rejected, with the reason."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fake_host import MODELS, PLUGIN_CLASS, declare, import_host, install, outcome

from anomalib_aoissl.plugin import registry as _registry

if TYPE_CHECKING:
    from conftest import MakePlugin


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
    monkeypatch.setitem(_registry.RULES, MODELS, _registry.HostRule("Renamed"))
    install()
    with pytest.warns(_registry.PluginWarning, match=r"this version of anomalib has no class fakehost.models.Renamed"):
        import_host()
