# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The loop of a process: take a job that is ready and that nobody has, run it, write its result, until none is left."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .plan import Job
from .sharing import Board
from .table import write_table

__all__ = ["work"]

logger = logging.getLogger(__name__)

Runner = Callable[[Job, Board], Mapping[str, Any]]

_PAUSE_SECONDS = 2.0


def work(
    jobs: Sequence[Job],
    board: Board,
    run: Runner,
    pause: float = _PAUSE_SECONDS,
    planned: Sequence[Job] | None = None,
) -> int:
    """Run what nobody has run, and return how many of the jobs are without a result at the end.

    A job that fails is written down and not tried again before the next start. One whose weights failed is left.

    Args:
        jobs: What is to be run.
        board: Where claims and results are.
        run: What runs a job, and returns its result as plain data.
        pause: Seconds between two looks while others work on what is left.
        planned: The whole plan, which the table is of, where the jobs are a part of it.
    """
    begun = board.now()
    while True:
        took, waiting = False, False
        for job in jobs:
            if board.has_result(job.id) or _failed_since(board, job.id, begun):
                continue
            if not all(board.has_result(need) for need in job.needs):
                waiting |= not any(_failed_since(board, need, begun) for need in job.needs)
                continue
            took_this = _attempt(job, board, run, planned or jobs)
            took, waiting = took or took_this, waiting or not took_this
        if not took and not waiting:
            break
        if not took:
            time.sleep(pause)
    write_table(planned or jobs, board)
    return sum(not board.has_result(job.id) for job in jobs)


def _attempt(job: Job, board: Board, run: Runner, planned: Sequence[Job]) -> bool:
    """Run a job where it is free; return whether it was."""
    with board.claim(job.id) as free:
        if not free:
            return False
        now = time.strftime("%H:%M:%S")
        print(f"{now} {sum(board.has_result(j.id) for j in planned)} of {len(planned)} done; now {job.id}", flush=True)
        try:
            result = run(job, board)
        except Exception as error:  # one job must not end the others
            logger.warning("%s failed: %s: %s", job.id, type(error).__name__, error, exc_info=True)
            board.write_failure(job.id, f"{type(error).__name__}: {error}")
            return True
        board.write_result(job.id, result)
    write_table(planned, board)
    return True


def _failed_since(board: Board, job: str, begun: float) -> bool:
    """Return whether a job failed after this process began, here or elsewhere."""
    failure = board.failure(job)
    return failure is not None and failure["time"] >= begun
