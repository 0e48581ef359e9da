# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Fixtures for all tests: fixed seeds, fake plugin packages, and an environment with the built wheel."""

import gc
import os
import random
import subprocess
import sys
import sysconfig
import textwrap
import venv
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from few_filters import FEW, Filters, filters_of

# Each test process computes with one thread: several processes with a thread for each core slow each other down.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Exports and imports make many objects that last. To look through them again and again takes a tenth of the time.
gc.set_threshold(50_000, 20, 20)

ROOT = Path(__file__).resolve().parent.parent
SEED = 20260

MakePlugin = Callable[..., Path]
MakeEnvironment = Callable[..., Path]
MakeOnce = Callable[[str, Callable[[Path], object]], Path]


class Built(NamedTuple):
    """The project's two distribution files."""

    sdist: Path
    wheel: Path


class Traced(NamedTuple):
    """A model that was trained and exported."""

    model: Any
    xml: Path


SLOWEST = (
    *("test_end_to_end.py", "test_compressions.py", "test_head_edits.py", "test_tiled_retrieval.py"),
    *("test_gathering.py", "test_killed_saves.py", "test_segmenter_checkpoint.py", "test_label_page.py"),
    *("test_segmenter_distributed.py", "test_tutorial.py", "test_pretraining_distributed.py", "test_export.py"),
    *("test_label_teaching.py", "test_plugins_in_anomalib.py", "test_openvino_editing.py", "test_gate.py"),
    "test_pyramid_export.py",
    *("test_segmenter_lightning_model.py", "test_abstention.py", "test_tiled_segmenter.py", "test_bad_devices.py"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slowest files first, so that no process waits long for another at the end."""
    items.sort(key=lambda item: SLOWEST.index(item.path.name) if item.path.name in SLOWEST else len(SLOWEST))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Start every test from the same seeds, in the libraries that are loaded."""
    random.seed(SEED)
    if "numpy" in sys.modules:
        # Code under test may still draw from the global generator.
        sys.modules["numpy"].random.seed(SEED)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(SEED)


@pytest.fixture
def make_plugin(tmp_path: Path) -> MakePlugin:
    """Return a function that writes an installed package, as pip would leave it, into a folder."""

    def make(
        package: str,
        modules: dict[str, str],
        entry_points: str,
        *,
        version: str = "1.0",
        folder: Path = tmp_path / "site",
    ) -> Path:
        for name, source in {package: "", **modules}.items():
            is_package = any(other.startswith(f"{name}.") for other in [package + ".", *modules]) or name == package
            path = folder.joinpath(*name.split("."), "__init__.py" if is_package else "")
            path = path if is_package else path.with_suffix(".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(source), encoding="utf-8")
        info = folder / f"{package}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(textwrap.dedent(entry_points))
        return folder

    return make


@pytest.fixture(scope="session", autouse=True)
def _no_gate() -> Iterator[None]:
    """Export without comparing what was exported: the tests of the gate ask for it."""
    from anomalib_aoissl.plugin.export.options import exporting

    with exporting("off"):
        yield


@pytest.fixture(scope="session", autouse=True)  # helpers that are no fixtures use the folder too
def made_once(tmp_path_factory: pytest.TempPathFactory) -> MakeOnce:
    """Return a function that gives the folder of a name, which is not to be changed.

    The first of all test processes to ask for it has it filled; the others wait until it is there.
    """
    import making_once

    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "made_once"
    shared.mkdir(exist_ok=True)
    making_once.SHARED.append(shared)
    return making_once.made_once


@pytest.fixture(scope="session")
def clean_environment() -> dict[str, str]:
    """Return environment variables in which neither the checkout nor a switch of the hook is set."""
    unwanted = ("PYTHONPATH", "PYTHONHOME", "ANOMALIB_AOISSL_AUTOLOAD", "PYTHONWARNINGS")
    return {name: value for name, value in os.environ.items() if name not in unwanted}


@pytest.fixture(scope="session")
def built(made_once: MakeOnce, clean_environment: dict[str, str]) -> Built:
    """Return the sdist of the checkout and the wheel that was built from that sdist."""

    def build(folder: Path) -> None:
        command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
        _run(command, folder, clean_environment)

    dist = made_once("dist", build)
    (sdist,) = dist.glob("*.tar.gz")
    (wheel,) = dist.glob("*.whl")
    return Built(sdist, wheel)


@pytest.fixture(scope="session")
def installed_environment(built: Built, make_environment: MakeEnvironment, made_once: MakeOnce) -> Path:
    """Return a virtual environment in which the built wheel is installed.

    Its dependencies are those of the environment that runs the tests, seen
    through a path file; packages of the environment itself come first, so that
    the wheel wins over an install of the checkout. ``bin/anomalib`` is the console
    script of anomalib as an installer writes it. Run commands in it with
    ``clean_environment`` and away from the checkout.
    """
    return made_once("installed", lambda folder: make_environment(folder / "venv", str(built.wheel))) / "venv"


@pytest.fixture(scope="session")
def make_environment(clean_environment: dict[str, str]) -> MakeEnvironment:
    """Return a function that makes an environment as above and has pip install into it what it is told."""

    def make(folder: Path, *pip_arguments: str) -> Path:
        venv.create(folder, with_pip=False, symlinks=os.name != "nt")
        _share_packages(folder)
        _write_console_script(folder)
        _pip_install(folder, pip_arguments, clean_environment)
        return folder

    return make


def _share_packages(folder: Path) -> None:
    site_packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    shared = dict.fromkeys([sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    # Only paths: the .pth files in those folders, such as the one of an editable
    # install of this project, are not read from here.
    (site_packages / "zz_shared.pth").write_text("".join(f"{path}\n" for path in shared))


def _write_console_script(folder: Path) -> None:
    (script,) = entry_points(group="console_scripts", name="anomalib")
    python = _scripts(folder) / "python"
    path = _scripts(folder) / "anomalib"
    path.write_text(f"#!{python}\nimport sys\nfrom {script.module} import {script.attr}\nsys.exit({script.attr}())\n")
    path.chmod(0o755)


def _pip_install(folder: Path, arguments: tuple[str, ...], environment: dict[str, str]) -> None:
    """Install without an index and without dependencies, and over a shared install of the same version."""
    python = _scripts(folder) / "python"
    options = ["--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check", "--quiet"]
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--ignore-installed", *options]
    _run([*command, *arguments], folder, environment)


def _scripts(folder: Path) -> Path:
    return folder / ("Scripts" if os.name == "nt" else "bin")


def _run(command: list[str], folder: Path, environment: dict[str, str]) -> None:
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture(scope="session")
def tiny_encoder() -> dict[str, object]:
    """Return the description of a random transformer that runs in milliseconds: patch 8, 32 dims, 2 blocks."""
    return {
        "architecture": "vit_tiny_patch16_224",
        "model_args": {"patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2},
    }


@pytest.fixture(scope="session")
def short_fits() -> Iterator[None]:
    """Fit the pixel head in few steps to few pixels: what it can is not what most tests are about."""
    from anomalib_aoissl.pixel_head.learning import labelled, stages

    patch = pytest.MonkeyPatch()
    patch.setattr(stages, "STEPS", 40)
    patch.setattr(stages, "REFIT_STEPS", 60)
    patch.setattr(labelled, "PIXELS", 3000)
    yield
    patch.undo()


@pytest.fixture(scope="session", autouse=True)
def _few_filters() -> Iterator[Filters]:
    """Give pixel heads few filters; the value is those that users have."""
    if find_spec("torch") is None:  # the tests of the line
        yield {}
        return
    with filters_of(FEW) as all_of_them:
        yield all_of_them


@pytest.fixture(scope="module")
def all_filters(_few_filters: Filters) -> Iterator[None]:
    """Give the pixel heads of one file's tests the filters that users have."""
    with filters_of(_few_filters):
        yield


@pytest.fixture
def few_filters() -> Iterator[None]:
    """Give the pixel heads of one test few filters, where its file has all of them."""
    with filters_of(FEW):
        yield


@pytest.fixture(scope="module")
def traced(short_fits: None, all_filters: None, made_once: MakeOnce, tiny_encoder: dict[str, object]) -> Traced:
    """Return a model with a pixel head whose exports all share one graph, and its OpenVINO export; not to be changed.

    Tracing takes most of an export's time: one graph serves all tests, in all processes. The head has all filters.
    """
    import torch
    from editable_models import traced_once
    from test_export import drawn_masks, drawn_pictures, trained

    def fill(folder: Path) -> None:
        model = traced_once(trained(tiny_encoder, drawn_pictures(3), drawn_masks(drawn_pictures(3))))
        model.to_openvino(folder)
        torch.save(model, folder / "model.pt")

    folder = made_once("traced", fill)
    model = torch.load(folder / "model.pt", weights_only=False)
    return Traced(model, folder / "weights" / "openvino" / "model.xml")


@pytest.fixture(scope="session")
def drawn_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with eight drawn images of two devices, 64x96 px, two lighting channels; not to be changed."""
    from anomalib_aoissl.wirebond.drawing import write_images

    root = tmp_path_factory.mktemp("drawn")
    return write_images(root, devices=["sot23_copper", "soic8_gold"], units=4, seed=0, size=(64, 96), workers=0)
