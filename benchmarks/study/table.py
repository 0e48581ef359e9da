# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Results to one CSV, a row for each measured job; ``python -m anomalib_aoissl report`` reads it."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from anomalib_aoissl.data.files import whole_file, write_text

from .plan import Job
from .sharing import Board

__all__ = ["COLUMNS", "TableError", "read_table", "write_table"]

COLUMNS = (
    *("kind", "slices", "set", "model", "weights", "labels", "seed", "budget", "peer", "pretraining_seconds"),
    *("mean_iou", "class_iou", "image_iou", "auroc", "pixel_ap", "defects", "fit_seconds", "test_seconds"),
    *("test_images", "pictures", "job", "commit", "command", "machine", "versions", "finished"),
)
"""Names of the CSV's columns; mappings and lists are JSON."""

_MEASURED = ("masks", "novelty")

_RESULT = ("pretraining_seconds", *COLUMNS[COLUMNS.index("mean_iou") :])
"""Columns that a job's result fills; the others say which job it is."""

_TEXTS = ("pictures", "job", "commit", "command", "machine", "versions", "finished")


_LONGEST_WRITING = 60.0  # s


class TableError(ValueError):
    """An earlier study.csv that cannot be read; the message names the file, and the row and column where it is one."""


def read_table(jobs: Iterable[Job], board: Board) -> int:
    """Take the rows of an earlier study.csv as results of jobs that have none; return how many.

    So a study goes on from its table alone, on a machine that does not have the files of its results. Columns that an
    older table has not are left out; a row without a mean IoU or an AUROC is no result.

    Raises:
        TableError: If the table does not say which job a row is of, or holds what `write_table` does not write.
    """
    path = board.folder / "study.csv"
    rows = _rows(path) if path.is_file() else {}
    taken = [job.id for job in jobs if job.id in rows and not board.has_result(job.id)]
    results = {job: _result(*rows[job], path) for job in taken}
    for job, result in results.items():
        if not all((board.folder / part).is_dir() for part in result.get("pictures", "").split()):
            del result["pictures"]  # its masks stayed on the other machine
        board.write_result(job, result)
    return len(taken)


def _rows(path: Path) -> dict[str, tuple[int, dict[str, str]]]:
    """Return the rows of a table that have a result, and their lines, by job."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(enumerate(csv.DictReader(file), start=2))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        msg = f"{path}: cannot be read as the table of a study ({error}). Move it away to start without it."
        raise TableError(msg) from error
    if rows and "job" not in rows[0][1]:
        msg = f"{path}: has no column 'job', so that its rows are of no job. Move it away to start without it."
        raise TableError(msg)
    return {row["job"]: (line, row) for line, row in rows if row.get("mean_iou") or row.get("auroc")}


def _result(line: int, row: dict[str, str], path: Path) -> dict[str, Any]:
    """Return the result in a row's cells."""
    result: dict[str, Any] = {}
    for name in _RESULT:
        if name == "job" or not (cell := row.get(name)):
            continue
        try:
            result[name] = cell if name in _TEXTS else _read_cell(cell)
        except ValueError as error:
            msg = f"{path}, line {line}, column {name!r}: {cell!r} is no number and no JSON. Correct or remove the row."
            raise TableError(msg) from error
    return result


def _read_cell(cell: str) -> Any:
    """Return the number, mapping or list in a cell; numbers that are not finite stand in it as Python writes them."""
    return float(cell) if cell in {"nan", "inf", "-inf"} else json.loads(cell)


def write_table(jobs: Iterable[Job], board: Board) -> Path:
    """Write study.csv of the results that there are, and study.missing.txt of what is missing and why."""
    jobs = list(jobs)
    measured = [job for job in jobs if job.kind in _MEASURED]
    path = board.folder / "study.csv"
    with _alone(board):  # a slower process would put back what it saw before
        with whole_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            for job in measured:
                if (result := board.result(job.id)) is not None:
                    writer.writerow(_row(job, result, board))
        write_text(board.folder / "study.missing.txt", "".join(_missing(jobs, board)))
    return path


@contextmanager
def _alone(board: Board) -> Iterator[None]:
    """Let one process at a time into the block; where the folder has no locks, or one is left over, after a minute."""
    with ExitStack() as stack:
        with suppress(Timeout, NotImplementedError):
            stack.enter_context(FileLock(board.folder / "claims" / ".table.lock", timeout=_LONGEST_WRITING))
        yield


def _row(job: Job, result: dict[str, Any], board: Board) -> dict[str, Any]:
    """Return the cells of a job."""
    spec = job.spec
    own = {key: spec[key] for key in ("set", "model", "weights", "labels", "seed", "budget")}
    trained = [board.result(need) for need in job.needs]  # none where the row was taken from a table
    seconds = (
        {"pretraining_seconds": sum(entry["fit_seconds"] for entry in trained)} if all(trained) and trained else {}
    )
    peer = bool(spec["model_settings"].get("peer"))
    row = {**own, **seconds, **result, "kind": job.kind, "slices": "; ".join(job.slices), "job": job.id, "peer": peer}
    return {key: _cell(row.get(key)) for key in COLUMNS}


def _cell(value: Any) -> Any:
    """Return a value as a cell holds it."""
    if value is None:
        return ""
    if isinstance(value, dict | list):
        return json.dumps(value)
    return round(value, 5) if isinstance(value, float) else value


def _missing(jobs: Iterable[Job], board: Board) -> Iterable[str]:
    """Give a line for each job without a result."""
    for job in jobs:
        if not board.has_result(job.id):
            failure = board.failure(job.id)
            why = "not run yet" if failure is None else f"failed: {failure['error']}"
            yield f"{job.id}\t{' '.join(why.split())}\n"  # some errors have several lines
