# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""``docs/architecture.md`` sends nobody to a file or a name that is not there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TABLE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").partition("## The rooms")[0]
ROWS = [line.split("|")[1:4] for line in TABLE.splitlines() if line.startswith("| ")][2:]


def names_of(path: Path) -> set[str]:
    """Return the names that files of Python bind at their top, and the functions of their classes as ``Class.name``."""
    found = set()
    for file in [path] if path.is_file() else path.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                found |= {f"{node.name}.{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)}
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                found.add(node.name)
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0].strip())
def test_each_row_names_what_is_there(row: list[str]) -> None:
    found = set()
    for place in re.findall(r"`([^`]+)`", row[1]):
        path = next((root / place for root in (ROOT / "anomalib_aoissl", ROOT) if (root / place).exists()), None)
        assert path is not None, place
        found |= names_of(path)
    named = set(re.findall(r"`([^`]+)`", row[2]))
    assert named
    assert named <= found


def test_the_table_is_read() -> None:
    assert len(ROWS) > 25
