# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""A host in which plugins are found, and what asks it."""

from __future__ import annotations

import importlib
import importlib.util
import json
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from anomalib_aoissl.plugin import autoload as _autoload
from anomalib_aoissl.plugin import registry as _registry

if TYPE_CHECKING:
    pass


ROOT = Path(__file__).resolve().parents[3]
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


def run_python(code: str, *paths: Path, env: dict[str, str], options: tuple[str, ...] = ()) -> dict:
    """Run code in an interpreter of its own and return the JSON on its last line of output."""
    preamble = "".join(f"sys.path.insert(0, {str(path)!r})\n" for path in [ROOT, *paths])
    command = [sys.executable, *options, "-c", f"import sys\n{preamble}{textwrap.dedent(code)}"]
    result = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return {**json.loads(result.stdout.splitlines()[-1]), "stderr": result.stderr}
