# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""A fake host on the path, and a faultless plugin of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fake_host import HOST, MODELS, PLUGIN_CLASS, declare

from anomalib_aoissl.plugin import autoload as _autoload
from anomalib_aoissl.plugin import registry as _registry

if TYPE_CHECKING:
    from conftest import MakePlugin


@pytest.fixture
def site(make_plugin: MakePlugin, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Install the fake host in a folder on ``sys.path`` and undo all that the hook does."""
    folder = make_plugin("fakehost", HOST, "")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    monkeypatch.setattr(_autoload, "_installed", [])
    monkeypatch.setattr(_registry, "_plugins", {})
    monkeypatch.setitem(_registry.RULES, MODELS, _registry.HostRule("Base", direct=True, fold_case=True))
    monkeypatch.delenv(_autoload.SWITCH, raising=False)
    yield folder
    for name in [name for name in sys.modules if name.split(".")[0].startswith(("fakehost", "fakeplug"))]:
        del sys.modules[name]


@pytest.fixture
def good(site: Path, make_plugin: MakePlugin) -> Path:
    """Install one faultless plugin."""
    modules = {"fakeplug.deep.model": PLUGIN_CLASS.format(name="Good"), "fakeplug.deep": ""}
    return make_plugin("fakeplug", modules, declare("Good = fakeplug.deep.model:Good"))
