# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The distribution without torch: what is in its wheel, that nothing there needs more, and that it lives alone."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import MakeEnvironment

ROOT = Path(__file__).resolve().parents[2]
LINE = ROOT / "packaging" / "line"
VERSION = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.M)[1]  # type: ignore[index]
DIST = f"anomalib_aoissl_line-{VERSION}"
HEAVY = {
    "torch", "torchvision", "lightning", "anomalib", "timm", "pandas", "nncf", "onnx", "faiss", "tqdm", "matplotlib",
}  # fmt: skip
ELSEWHERE = {f"anomalib_aoissl.{name}" for name in ("retrieval", "cli.checkpoints", "cli.reporting.page", "labelling")}
"""What commands import when they are given a checkpoint, or that need torch or matplotlib."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory, clean_environment: dict[str, str]) -> Path:
    """Return the wheel, built from the sdist that is built from the checkout."""
    dist = tmp_path_factory.mktemp("line")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(dist), str(LINE)]
    result = subprocess.run(command, cwd=dist, env=clean_environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return next(dist.glob("*.whl"))


@pytest.fixture(scope="module")
def files(wheel: Path) -> dict[str, str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}


def imported(source: str, name: str) -> set[str]:
    """Return the absolute names of all modules that a file may import, at any time."""
    package = name.removesuffix(".py").replace("/", ".").rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: package.count(".") + 2 - node.level] if node.level else []
            found.add(".".join([*above, *([node.module] if node.module else [])]))
    return found


def test_the_wheel_has_the_rooms_of_the_line_and_no_other(files: dict[str, str]) -> None:
    names = {name for name in files if name.startswith("anomalib_aoissl/")}
    for room in ("bank", "deployment", "data/label_formats", "data/labels", "data/reading", "measuring"):
        here = {file.relative_to(ROOT).as_posix() for file in (ROOT / "anomalib_aoissl" / room).rglob("*.py")}
        assert here <= names, f"left out, since they import what the line has not: {here - names}"
    wanted = (
        "__init__",
        "__main__",
        "cli/bank",
        "cli/doctor",
        "cli/explain",
        "pixel_head/learning/stages",
        "plugin/autoload",
    )
    assert {f"anomalib_aoissl/{name}.py" for name in wanted} | {"anomalib_aoissl/py.typed"} <= names
    rooms = {name.split("/")[1] for name in names if name.count("/") > 1}
    assert rooms == {"bank", "cli", "data", "deployment", "measuring", "pixel_head", "plugin", "visualization"}
    tops = {name.split("/")[0] for name in files}
    assert tops == {"anomalib_aoissl", f"{DIST}.dist-info"}  # no start-up hook
    assert not [name for name in files if name.endswith((".safetensors", "entry_points.txt"))]


def test_no_module_of_the_wheel_imports_torch_or_what_is_not_there(files: dict[str, str]) -> None:
    modules = {name: source for name, source in files.items() if name.endswith(".py")}
    present = {name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in modules}
    for name, source in modules.items():
        names = imported(source, name)
        assert not {module.partition(".")[0] for module in names} & HEAVY, name
        ours = {module for module in names if module.startswith("anomalib_aoissl.")} - present
        lacking = [module for module in ours if not module.startswith(tuple(ELSEWHERE))]
        lazy = name == "anomalib_aoissl/__init__.py"  # its names say what is missing when they are read
        assert lazy or not lacking, f"{name} imports {lacking}, which the line has not"


def test_the_wheel_asks_for_no_torch(files: dict[str, str]) -> None:
    metadata = files[f"{DIST}.dist-info/METADATA"]
    needed = {
        line.split()[1].partition(">")[0]
        for line in metadata.splitlines()
        if line.startswith("Requires-Dist") and "extra ==" not in line
    }
    assert needed == {
        "einops",
        "imagecodecs",
        "jsonargparse[signatures]",
        "numpy",
        "opencv-python-headless",
        "openvino",
        "pillow",
        "safetensors",
        "threadpoolctl",
        "tifffile",
    }
    assert f"Version: {VERSION}\n" in metadata
    assert files[f"{DIST}.dist-info/licenses/LICENSE"] == (ROOT / "LICENSE").read_text()


def test_installed_alone_it_says_what_it_is(wheel: Path, clean_environment: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target"]
    subprocess.run([*command, str(tmp_path), str(wheel)], env=clean_environment, check=True, capture_output=True)
    # -S: the environment that runs the tests may hold an install of its own.
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import anomalib_aoissl, runpy; "
        "print(anomalib_aoissl.__version__); runpy.run_module('anomalib_aoissl', run_name='__main__')"
    )
    result = subprocess.run(
        [sys.executable, "-S", "-c", script], env=clean_environment, capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(f"{VERSION}\nanomalib-aoissl-line {VERSION}, Python 3")
    report = [sys.executable, "-S", "-c", script, "report", "study.csv", "--output", str(tmp_path / "page")]
    result = subprocess.run(report, env=clean_environment, capture_output=True, text=True, check=False)
    assert result.returncode == 2, "the page needs matplotlib"
    assert "report: this machine has anomalib-aoissl-line" in result.stderr


def test_beside_the_whole_package_the_report_says_so(
    wheel: Path, make_environment: MakeEnvironment, clean_environment: dict[str, str], tmp_path: Path
) -> None:
    folder = make_environment(tmp_path / "venv", "--editable", str(ROOT))
    python = next(path for path in (folder / "bin" / "python", folder / "Scripts" / "python.exe") if path.exists())
    info = next(folder.rglob("anomalib_aoissl-*.dist-info")).parent
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target"]
    subprocess.run([*command, str(info), str(wheel)], env=clean_environment, check=True, capture_output=True)
    script = "from anomalib_aoissl.__main__ import _installed_twice; print(_installed_twice())"
    result = subprocess.run(
        [str(python), "-c", script], cwd=tmp_path, env=clean_environment, capture_output=True, text=True, check=True
    )
    assert "anomalib-aoissl and anomalib-aoissl-line share their files; pip uninstall both" in result.stdout


def test_an_unused_hook_says_nothing_where_there_is_no_anomalib(clean_environment: dict[str, str]) -> None:
    script = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import anomalib_aoissl.plugin.autoload as a; a.install()\n"
    )
    script += "try:\n    import anomalib.models\nexcept ModuleNotFoundError as error:\n    print(error.name)"
    command = [sys.executable, "-S", "-c", script]
    result = subprocess.run(command, env=clean_environment, capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == ("anomalib\n", "")
