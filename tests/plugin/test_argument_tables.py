# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The tables of arguments in the documents are those of signatures and docstrings."""

import importlib.util
import inspect
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    pytest.importorskip("docstring_parser")
    spec = importlib.util.spec_from_file_location("argument_tables", ROOT / "docs" / "argument_tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_document_is_current(
    tables: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(sys, "argv", ["argument_tables.py"])
    assert tables.main() == 0, capsys.readouterr().err


def test_every_class_stands_in_one_document(tables: ModuleType) -> None:
    texts = "".join((ROOT / name).read_text(encoding="utf-8") for name in tables.DOCUMENTS)
    assert sorted(re.findall(r"<!-- arguments: (\w+) -->", texts)) == sorted(tables.classes())


def test_every_argument_is_described(tables: ModuleType) -> None:
    for cls in tables.classes().values():
        rows = [re.findall(r"^\| `([\w.]+)` \| (.*?) \| (.+) \|$", line) for line in tables.table(cls).splitlines()[2:]]
        assert all(row and row[0][2].strip() for row in rows)
        shown = [row[0][0] for row in rows if "." not in row[0][0]]
        bases = [base for base in cls.__mro__[1:] if base in tables.classes().values()]  # have a table of their own
        elsewhere = {name for base in bases for name in inspect.signature(base).parameters}
        taken = inspect.signature(cls).parameters
        assert shown == [name for name in taken if name not in elsewhere or name in shown]
        assert set(shown) | elsewhere >= set(taken)


def test_an_old_table_is_found_and_replaced(tables: ModuleType) -> None:
    old = "before\n<!-- arguments: WireBond -->\n| a |\n<!-- end -->\nafter"
    new = tables.current(old)
    assert "| `lot` | 0 | Production lot; 0 is the nominal one" in new
    assert new.startswith("before\n<!-- arguments: WireBond -->\n\n| argument |")
    assert new.endswith("<!-- end -->\nafter")
    assert tables.current(new) == new
