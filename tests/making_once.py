# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Folders that are filled once for all test processes, also for helpers that are no fixtures."""

import shutil
from collections.abc import Callable
from pathlib import Path

SHARED: list[Path] = []
"""The folder of these folders, once the fixture ``made_once`` has made it."""


def made_once(name: str, fill: Callable[[Path], object]) -> Path:
    """Return the folder of a name, filled by whichever process asks first; not to be changed."""
    from filelock import FileLock

    shared = SHARED[-1]
    folder, done = shared / name, shared / f"{name}.done"
    with FileLock(shared / f"{name}.lock"):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)  # what a process left that failed
            folder.mkdir()
            fill(folder)
            done.touch()
    return folder
