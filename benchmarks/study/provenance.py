# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Where a number comes from: commit, machine, versions."""

from __future__ import annotations

import datetime as dt
import os
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import anomalib_aoissl

__all__ = ["provenance"]

_PACKAGES = ("anomalib-aoissl", "torch", "anomalib", "timm", "segmentation-models-pytorch", "scikit-learn")


def provenance() -> dict[str, str]:
    """Return commit, machine, versions and the time, each a text."""
    return {
        "commit": _commit(),
        "machine": _machine(),
        "versions": _versions(),
        "finished": dt.datetime.now(tz=dt.timezone.utc).isoformat(timespec="seconds"),
    }


@cache
def _commit() -> str:
    """Return the commit of the checkout that the package is imported from, with a plus where files differ from it."""
    folder = Path(anomalib_aoissl.__file__).resolve().parent
    try:
        short = _git(folder, "rev-parse", "--short", "HEAD").strip()
        return short + ("+" if _git(folder, "status", "--porcelain", "--untracked-files=no").strip() else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(folder: Path, *arguments: str) -> str:
    """Return what git says."""
    git = ["git", "-C", str(folder), *arguments]
    return subprocess.run(git, capture_output=True, text=True, check=True).stdout


@cache
def _machine() -> str:
    """Return processor, cores and system."""
    processor = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.is_file():
        lines = information.read_text(encoding="utf-8").splitlines()
        processor = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), processor)
    return f"{processor}, {os.cpu_count()} cores, {platform.system()}"


@cache
def _versions() -> str:
    """Return Python's version and those of the packages that numbers depend on."""
    found = [f"Python {platform.python_version()}"]
    for name in _PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)
