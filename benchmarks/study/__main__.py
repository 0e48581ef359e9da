# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Run a study, or go on with one: ``python -m benchmarks.study --config FILE --output FOLDER``.

Each job is claimed by a file in the folder. So the same command, started again, goes on where it stopped, and started
on another machine that sees the folder, it shares the work.
"""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
import warnings
from collections import defaultdict
from pathlib import Path

from .plan import Job, PlanError, estimate, plan, read_config
from .sharing import Board
from .table import TableError, read_table, write_table
from .working import work


def main() -> int:
    """Do what the command line says; return 0 where every job has a result, 1 where some have not, 2 on bad input."""
    options = _parser().parse_args()
    try:
        planned = jobs = plan(read_config(options.config))
    except PlanError as error:
        print(error, file=sys.stderr)
        return 2
    if options.plan:
        print(describe(jobs))
        return 0
    if options.only:
        wanted = {job.id: job for job in jobs}.get(options.only)
        if wanted is None:
            print(f"--only {options.only}: is no job of {options.config}; --plan lists them.", file=sys.stderr)
            return 2
        jobs = [job for job in jobs if job.id in {wanted.id, *wanted.needs}]
    board = Board(options.output)
    try:
        taken = read_table(planned, board)
    except TableError as error:
        print(error, file=sys.stderr)
        return 2
    if taken:
        print(f"{taken} results are taken from {board.folder / 'study.csv'}.")
    planned, jobs = (without_needless(some, board, options.only) for some in (planned, jobs))
    if options.merge:
        print(write_table(planned, board))
        return 0
    others = [subprocess.Popen(_command(options)) for _ in range(options.processes - 1)]
    _work(jobs, planned, board, options)
    for other in others:
        other.wait()
    path = write_table(planned, board)
    missing = sum(not board.has_result(job.id) for job in jobs)
    print(f"{path}: {len(jobs) - missing} of {len(jobs)} jobs done" + (f"; see {_list(board)}" if missing else ""))
    return int(missing > 0)


def without_needless(jobs: list[Job], board: Board, named: str | None = None) -> list[Job]:
    """Return the jobs without weights that were not trained and that neither an open job nor ``--only`` names."""
    needed = {named, *(need for job in jobs if not board.has_result(job.id) for need in job.needs)}
    return [job for job in jobs if job.kind != "pretraining" or job.id in needed or board.has_result(job.id)]


def _list(board: Board) -> Path:
    """Return the file that says what is missing."""
    return board.folder / "study.missing.txt"


def _work(jobs: list[Job], planned: list[Job], board: Board, options: argparse.Namespace) -> None:
    """Run what nobody has run; heavy imports happen here."""
    import torch

    from .running import runner

    logging.disable(logging.INFO)  # trainers and engines say the same at each of hundreds of runs
    warnings.filterwarnings("ignore")
    torch.set_num_threads(options.threads)
    roots = {"data": options.data, "drawn": options.drawn or options.output / "drawn"}
    work(jobs, board, runner(options.config, roots), planned=planned)


def _command(options: argparse.Namespace) -> list[str]:
    """Return the command of a further process with the same work."""
    command = [sys.executable, "-m", "benchmarks.study", "--config", str(options.config)]
    command += ["--output", str(options.output), "--data", str(options.data), "--threads", str(options.threads)]
    command += ["--drawn", str(options.drawn)] if options.drawn else []
    return command + (["--only", options.only] if options.only else [])


def describe(jobs: list[Job]) -> str:
    """Return a line for each job, and what each slice and all of them are expected to take, CPU minutes."""
    lines = [f"{estimate(job):7.0f} s  {job.id}" for job in jobs]
    slices: dict[str, float] = defaultdict(float)
    for job in jobs:
        slices[job.slices[0]] += estimate(job)
    lines += [f"{seconds / 60:7.1f} min  {name}" for name, seconds in slices.items()]
    return "\n".join([*lines, f"{sum(slices.values()) / 60:7.1f} min  in all, {len(jobs)} jobs"])


def _parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.study", description="Run a study, or go on with one.")
    parser.add_argument("--config", type=Path, required=True, help="such as configs/benchmark/study_small.yaml")
    parser.add_argument("--output", type=Path, required=True, help="folder of the study; shared by its processes")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the sets (%(default)s)")
    parser.add_argument("--drawn", type=Path, help="folder of drawn sets (default: drawn/ of the output)")
    parser.add_argument("--processes", type=int, default=1, help="processes here (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="threads of each; seconds are CPU seconds (%(default)s)")
    parser.add_argument("--only", metavar="JOB", help="run one job, and what it needs")
    parser.add_argument("--plan", action="store_true", help="list the jobs and what they are expected to take")
    parser.add_argument("--merge", action="store_true", help="write study.csv of the results that there are")
    return parser


if __name__ == "__main__":
    sys.exit(main())
