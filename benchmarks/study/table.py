# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Results to one CSV, a row for each measured job; ``python -m anomalib_aoissl report`` reads it."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from anomalib_aoissl.data.files import whole_file, write_text

from .plan import Job
from .sharing import Board

__all__ = ["COLUMNS", "read_table", "write_table"]

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


def read_table(jobs: Iterable[Job], board: Board) -> int:
    """Take the rows of an earlier study.csv as results of jobs that have none; return how many.

    So a study goes on from its table alone, on a machine that does not have the files of its results.
    """
    path = board.folder / "study.csv"
    if not path.is_file():
        return 0
    with path.open(newline="", encoding="utf-8") as file:
        rows = {row["job"]: row for row in csv.DictReader(file)}
    taken = [job.id for job in jobs if job.id in rows and not board.has_result(job.id)]
    for job in taken:
        found = {name: rows[job][name] for name in _RESULT if rows[job][name]}
        result = {name: cell if name in _TEXTS else json.loads(cell) for name, cell in found.items() if name != "job"}
        if not all((board.folder / part).is_dir() for part in result.get("pictures", "").split()):
            del result["pictures"]  # its masks stayed on the other machine
        board.write_result(job, result)
    return len(taken)


def write_table(jobs: Iterable[Job], board: Board) -> Path:
    """Write study.csv of the results that there are, and study.missing.txt of what is missing and why."""
    jobs = list(jobs)
    measured = [job for job in jobs if job.kind in _MEASURED]
    path = board.folder / "study.csv"
    with whole_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for job in measured:
            if (result := board.result(job.id)) is not None:
                writer.writerow(_row(job, result, board))
    write_text(board.folder / "study.missing.txt", "".join(_missing(jobs, board)))
    return path


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
