# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of what is built and of what an installed package does at the start of Python."""

from __future__ import annotations

import json
import os
import pkgutil
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Built, MakeEnvironment

ROOT = Path(__file__).resolve().parents[2]
VERSION = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.M)[1]  # type: ignore[index]
DIST = f"anomalib_aoissl-{VERSION}"
HOOK_LINE = "import anomalib_aoissl.plugin.autoload; anomalib_aoissl.plugin.autoload.install()\n"

#: Prints what a fresh interpreter holds before any code of the user has run.
STARTED = """
import json, sys
hooks = [finder for finder in sys.meta_path if type(finder).__name__ == "HostFinder"]
import anomalib_aoissl
print(json.dumps({
    "hooks": len(hooks),
    "heavy": sorted({"torch", "anomalib", "lightning", "importlib.metadata", "logging"} & set(sys.modules)),
    "file": anomalib_aoissl.__file__,
    "version": anomalib_aoissl.__version__,
}))
"""


def python_of(environment: Path) -> Path:
    """Return the interpreter of an environment."""
    return environment / ("Scripts" if os.name == "nt" else "bin") / "python"


def started(python: Path, folder: Path, environment: dict[str, str], *options: str) -> dict:
    """Return what the script above prints when run by an interpreter."""
    command = [str(python), *options, "-c", STARTED]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    assert result.stderr == ""
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def wheel_files(built: Built) -> dict[str, str]:
    """Return the text files of the wheel, by name."""
    with zipfile.ZipFile(built.wheel) as archive:
        names = [name for name in archive.namelist() if not name.endswith(".safetensors")]
        return {name: archive.read(name).decode() for name in names}


def test_wheel_carries_the_encoders_weights(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as archive:
        sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
    for name in ("aoissl_mobilenetv2", "aoissl_vit_tiny_patch8"):
        assert 1e6 < sizes[f"anomalib_aoissl/encoder/weights/{name}.safetensors"] < 6e6


def test_wheel_carries_the_hook_at_the_top_of_site_packages(wheel_files: dict[str, str]) -> None:
    assert wheel_files["anomalib_aoissl.pth"] == HOOK_LINE
    assert wheel_files["anomalib_aoissl.start"] == "anomalib_aoissl.plugin.autoload:install\n"


def test_wheel_is_named_typed_licensed_and_free_of_tests(built: Built, wheel_files: dict[str, str]) -> None:
    assert built.wheel.name == f"{DIST}-py3-none-any.whl"
    assert "anomalib_aoissl/py.typed" in wheel_files
    info = f"{DIST}.dist-info"
    assert "Apache License" in wheel_files[f"{info}/licenses/LICENSE"]
    assert "License-Expression: Apache-2.0 AND BSD-3-Clause\n" in wheel_files[f"{info}/METADATA"]
    # That of torchvision's weights, which asks to be passed on with them.
    beside = wheel_files["anomalib_aoissl/encoder/weights/LICENSE-torchvision"]
    assert "Soumith Chintala" in beside
    assert wheel_files[f"{info}/licenses/anomalib_aoissl/encoder/weights/LICENSE-torchvision"] == beside
    assert "Requires-Python: >=3.10\n" in wheel_files[f"{info}/METADATA"]
    tops = {name.split("/")[0] for name in wheel_files}
    assert tops == {"anomalib_aoissl", "anomalib_aoissl.pth", "anomalib_aoissl.start", info}


def test_wheel_declares_its_plugins(wheel_files: dict[str, str]) -> None:
    declared = wheel_files[f"{DIST}.dist-info/entry_points.txt"]
    assert "[anomalib.models]\nAOISSLRetrieval = anomalib_aoissl:AOISSLRetrieval\n" in declared
    assert "SegmentationFolder = anomalib_aoissl.data.folder:SegmentationFolder\n" in declared
    assert "WireBond = anomalib_aoissl.wirebond.datamodule:WireBond\n" in declared


def test_sdist_carries_what_the_hook_and_the_tests_are_made_from(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {
        "packaging/autoload.pth.txt",
        "packaging/autoload.start.txt",
        "tests/packaging/test_packaging.py",
        "LICENSE",
    }
    assert wanted <= names
    assert not [name for name in names if name.startswith(("shared/", ".git/", "dist/")) or "__pycache__" in name]


def test_start_file_names_the_function_that_the_pth_file_calls() -> None:
    from anomalib_aoissl.plugin import autoload as _autoload

    (line,) = (ROOT / "packaging" / "autoload.start.txt").read_text().splitlines()
    assert pkgutil.resolve_name(line) is _autoload.install
    assert (ROOT / "packaging" / "autoload.pth.txt").read_text() == HOOK_LINE


def test_installed_wheel_starts_the_hook_and_nothing_heavy(
    installed_environment: Path, clean_environment: dict[str, str], tmp_path: Path
) -> None:
    python = python_of(installed_environment)
    state = started(python, tmp_path, clean_environment)
    assert state["hooks"] == 1
    assert state["heavy"] == []
    assert state["version"] == VERSION
    assert Path(state["file"]).is_relative_to(installed_environment)


def test_switch_keeps_the_hook_of_an_installed_wheel_off(
    installed_environment: Path, clean_environment: dict[str, str], tmp_path: Path
) -> None:
    python = python_of(installed_environment)
    state = started(python, tmp_path, {**clean_environment, "ANOMALIB_AOISSL_AUTOLOAD": "0"})
    assert state["hooks"] == 0


def test_report_of_an_unused_hook_says_which_file_was_not_read(
    installed_environment: Path, clean_environment: dict[str, str], tmp_path: Path
) -> None:
    (package,) = installed_environment.rglob("site-packages/anomalib_aoissl")  # a folder of licences has its name too
    command = [str(python_of(installed_environment)), "-S", "-m", "anomalib_aoissl"]
    environment = {**clean_environment, "PYTHONPATH": str(package.parent)}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert f"started with -S and did not read {package.parent / 'anomalib_aoissl.pth'}" in result.stdout
    rows = [line.split() for line in result.stdout.splitlines()]
    place = "anomalib_aoissl.wirebond.datamodule:WireBond"
    wire_bond = ["anomalib.data", "WireBond", place, "anomalib-aoissl", VERSION]
    assert [*wire_bond, "not", "registered:", "the", "hook", "is", "not", "in", "use"] in rows


def test_target_install_leaves_python_as_it_was(
    built: Built, clean_environment: dict[str, str], tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target"]
    subprocess.run([*command, str(tmp_path), str(built.wheel)], env=clean_environment, check=True, capture_output=True)
    # -S: the environment that runs the tests may hold an install of its own.
    insert = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
    result = subprocess.run(
        [sys.executable, "-S", "-c", insert + STARTED],
        env=clean_environment,
        capture_output=True,
        text=True,
        check=True,
    )
    state = json.loads(result.stdout)
    assert state["hooks"] == 0
    assert Path(state["file"]).is_relative_to(tmp_path)
    assert state["version"] == VERSION


def test_editable_install_starts_the_hook_from_the_checkout(
    make_environment: MakeEnvironment, clean_environment: dict[str, str], tmp_path: Path
) -> None:
    folder = make_environment(tmp_path / "venv", "--editable", str(ROOT))
    (hook,) = folder.rglob("anomalib_aoissl.pth")
    assert hook.read_text() == HOOK_LINE
    # Python reads them in this order; the hook needs the path that the other one adds.
    names = sorted(path.name for path in hook.parent.glob("*anomalib_aoissl.pth"))
    assert names == ["_anomalib_aoissl.pth", "anomalib_aoissl.pth"]
    state = started(python_of(folder), tmp_path, clean_environment)
    assert state["hooks"] == 1
    assert Path(state["file"]) == ROOT / "anomalib_aoissl" / "__init__.py"
