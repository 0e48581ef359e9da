# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Chooses the modules of the distribution without torch: those that need none of what it goes without."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = "anomalib_aoissl"


class LineModules(BuildHookInterface):
    """Puts the chosen modules into the wheel and into the sdist."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - the signature of the hook
        """Choose the files; an sdist has them beside this file, a checkout has them two folders up."""
        here = Path(self.root)
        source = here if (here / PACKAGE).is_dir() else here.parents[1]
        for file in chosen(source / PACKAGE, self.config["rooms"], set(self.config["without"])):
            build_data["force_include"][str(file)] = file.relative_to(source).as_posix()


def chosen(package: Path, rooms: list[str], without: set[str]) -> list[Path]:
    """Return the package's own files and those of its rooms that need nothing of what it goes without.

    Args:
        package: Folder of the package.
        rooms: Its sub-packages.
        without: Top-level packages that are not there.
    """
    files = [*package.glob("*.py"), *(file for room in rooms for file in (package / room).rglob("*.py"))]
    imports = {file: _imports(file, package.parent) for file in files}
    modules = {_name(file, package.parent): file for file, (anywhere, _) in imports.items() if not anywhere & without}
    while True:
        lacking = [
            name
            for name, file in modules.items()
            if any(needed.startswith(f"{PACKAGE}.") and needed not in modules for needed in imports[file][1])
        ]
        if not lacking:
            return sorted([*modules.values(), package / "py.typed"])
        for name in lacking:
            del modules[name]


def _name(file: Path, root: Path) -> str:
    """Return the module's name."""
    parts = file.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(file: Path, root: Path) -> tuple[set[str], set[str]]:
    """Return the top-level packages that a file imports anywhere, and the modules that it needs to be imported."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    package = _name(file, root) if file.name == "__init__.py" else _name(file, root).rpartition(".")[0]
    anywhere = {name.partition(".")[0] for node in ast.walk(tree) for name in _named(node, package)}
    needed = {name for node in tree.body for name in _named(node, package)}
    return anywhere, {_module(name, root) for name in needed}


def _named(node: ast.AST, package: str) -> list[str]:
    """Return the absolute names that an import statement names; none for another statement."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
    module = ".".join([*above, *([node.module] if node.module else [])])
    return [f"{module}.{alias.name}" for alias in node.names]


def _module(name: str, root: Path) -> str:
    """Return the module that holds a name, which may be one itself."""
    path = root.joinpath(*name.split("."))
    return name if path.with_suffix(".py").is_file() or path.is_dir() else name.rpartition(".")[0]
