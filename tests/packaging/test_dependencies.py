# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What the package imports is what pyproject.toml declares."""

import ast
import importlib.metadata
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import anomalib_aoissl

tomllib = pytest.importorskip("tomllib", reason="python 3.10 reads no TOML")

PACKAGE = Path(anomalib_aoissl.__file__).parent
DISTRIBUTIONS = {
    "cv2": "opencv-python-headless",
    "faiss": "faiss-cpu",
    "PIL": "pillow",
    "skimage": "scikit-image",
    "yaml": "pyyaml",
}
"""Of modules whose distribution has another name."""
NOT_IMPORTED = {"imagecodecs"}  # tifffile decodes compressed files with it
FOR_DEVELOPERS = {"dev", "docs", "study", "test"}  # the study runs from a checkout


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """Return what a file runs, without what only a type checker reads."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            continue
        yield child
        yield from statements(child)


def imports(text: str) -> set[str]:
    """Return the top modules that a file imports, anywhere in it, except its own package's and python's."""
    found = set()
    for node in statements(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(str(node.module))
    return {name.partition(".")[0] for name in found} - sys.stdlib_module_names - {"anomalib_aoissl"}


def declared() -> dict[str, Requirement]:
    """Return what users of the package may install with it, by name: its dependencies and its extras."""
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [lines for name, lines in project["optional-dependencies"].items() if name not in FOR_DEVELOPERS]
    wanted = [Requirement(line) for lines in (project["dependencies"], *extras) for line in lines]
    return {canonicalize_name(requirement.name): requirement for requirement in wanted}


def test_imports_are_found_wherever_they_stand() -> None:
    text = "import os, torch.nn\nif TYPE_CHECKING:\n    import rich\ndef f():\n    from .a import b\n    import cv2\n"
    assert imports(text) == {"torch", "cv2"}


def test_every_import_is_declared_and_nothing_else() -> None:
    modules = set().union(*(imports(file.read_text(encoding="utf-8")) for file in PACKAGE.rglob("*.py")))
    wanted = {canonicalize_name(DISTRIBUTIONS.get(module, module)) for module in modules}
    names = set(declared()) - {"anomalib-aoissl"}
    assert wanted - names == set(), "imported, not declared"
    assert names - wanted == NOT_IMPORTED, "declared, not imported"


def test_opencv_is_the_one_that_anomalib_brings() -> None:
    brought = {canonicalize_name(Requirement(line).name) for line in importlib.metadata.requires("anomalib") or ()}
    assert DISTRIBUTIONS["cv2"] in brought  # two distributions of cv2 overwrite each other's files
    assert [name for name in declared() if name.startswith("opencv")] == [DISTRIBUTIONS["cv2"]]
