# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The report of what is installed."""

from __future__ import annotations

import re
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fake_host import MODELS, declare, install

from anomalib_aoissl import __main__ as report
from anomalib_aoissl.plugin import autoload as _autoload

if TYPE_CHECKING:
    from conftest import MakePlugin


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
