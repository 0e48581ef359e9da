# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0
"""Worker processes for drawing: joblib's, which load numpy and OpenCV only.

Not a process pool of the standard library: forking a process that has torch and its threads loaded may lock up, and a
spawned pool runs the caller's main script again, which takes as long as its imports and fails where it is unguarded.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import cv2

from .unit_files import DrawingJob, write_job

_IDLE_SECONDS = 10  # then workers that have nothing to draw end


def run_in_workers(root: Path, jobs: list[DrawingJob], count: int) -> Iterator[str]:
    """Yield the stems of all jobs as worker processes finish them.

    Args:
        root: The folder to write to.
        jobs: What to draw; each picture goes to the next free worker.
        count: Number of worker processes.

    Raises:
        RuntimeError: If a worker fails.
    """
    from joblib import Parallel, delayed

    parts = [replace(job, units=(unit,)) for job in jobs for unit in job.units]
    pool = Parallel(count, return_as="generator_unordered", idle_worker_timeout=_IDLE_SECONDS)
    try:
        yield from pool(delayed(_drawn)(root, part, os.getpid()) for part in parts)
    except Exception as error:
        msg = (
            f"A worker process that draws into {root} failed ({error}). Call again with workers=0: it draws in this "
            "process, and goes on with the pictures that are missing."
        )
        raise RuntimeError(msg) from error


def _drawn(root: Path, part: DrawingJob, parent: int) -> str:
    """Draw the one unit of a job for the process of that number, and return its stem."""
    _end_with(parent)
    cv2.setNumThreads(1)  # the workers share the cores among themselves
    (stem,) = write_job(root, part)
    return stem


@cache
def _end_with(parent: int) -> None:
    """End this worker when its parent is gone: of a parent that was killed it would wait for work for ever."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    if os.name == "posix":  # elsewhere the number stays
        threading.Thread(target=watch, daemon=True).start()
