# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""JSON lines of benchmarks as a page of docs/results.

Usage: python benchmarks/table.py docs/results/lights.md "Other lights" --lines lights.jsonl
       --notes notes.md

A line has ``set``, ``shots`` and ``seed``; what else it has in numbers is averaged over the seeds. Lines of few-label
runs have ``method``, ``mean_iou``, ``seconds`` and ``per_class``.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import statistics
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch

from anomalib_aoissl.data.files import write_text


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description="JSON lines as a page of results.")
    parser.add_argument("page", type=Path)
    parser.add_argument("title")
    parser.add_argument("--lines", type=Path, nargs="+", required=True)
    parser.add_argument("--commit", default="HEAD", help="that was measured")
    parser.add_argument("--notes", type=Path, default=None, help="text that stands above the tables")
    arguments = parser.parse_args()
    parts = [f"# {arguments.title}", _made(arguments.commit)]
    if arguments.notes:
        parts.append(arguments.notes.read_text(encoding="utf-8").strip())
    for path in arguments.lines:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        parts += _tables(rows)
    write_text(arguments.page, "\n\n".join(parts) + "\n")


def give_line(row: dict[str, Any], log: Path | None) -> None:
    """Print what a benchmark found as a line of JSON, and add it to a file of such lines."""
    print(json.dumps(row), flush=True)
    if log:
        with log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def _made(commit: str) -> str:
    """Say with what the numbers were made."""
    git = ["git", "rev-parse", "--short", commit]
    short = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    today = dt.datetime.now(tz=dt.timezone.utc).date()
    return (
        f"Commit {short}, {today}; {platform.machine()}, {os.cpu_count()} cores, no GPU; torch "
        f"{torch.__version__}. Mean and standard deviation over the seeds; mean IoU pools the test images' pixels."
    )


def _tables(rows: list[dict[str, Any]]) -> list[str]:
    """Return a table for each set."""
    sets: dict[str, dict[tuple[Any, ...], list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    names = {row["set"]: list(row["per_class"]) for row in rows if isinstance(row.get("per_class"), dict)}
    for row in rows:
        if isinstance(row.get("per_class"), list):
            row["per_class"] = dict(zip(names.get(row["set"], []), row["per_class"], strict=False))
        flat = _flat(row)
        sets[row["set"]][row["shots"], row.get("method", ""), row.get("budget", "")].append(flat)
    tables = []
    for name, groups in sets.items():
        keys = list(dict.fromkeys(key for group in groups.values() for row in group for key in row))
        lines = [f"**{name}**", "", f"| labelled | method | seeds | {' | '.join(keys)} |"]
        lines.append("| --- " * (3 + len(keys)) + "|")
        for (shots, method, budget), group in sorted(groups.items(), key=lambda item: (item[0][0], item[0][1])):
            cells = [_cell([row[key] for row in group if key in row]) for key in keys]
            what = f"{method} ({budget:.0f} s)" if budget and method.startswith(("unet", "segmenter")) else method
            lines.append(f"| {shots} | {what} | {len(group)} | {' | '.join(cells)} |")
        tables.append("\n".join(lines))
    return tables


def _flat(row: dict[str, Any]) -> dict[str, float]:
    """Return the numbers of a line by name, those of mappings and lists too."""
    found: dict[str, float] = {}
    for key, value in row.items():
        if key in {"set", "shots", "seed", "method", "budget", "test", "train"}:
            continue
        if isinstance(value, dict):
            found |= {f"{key}: {name}" if key != "per_class" else name: number for name, number in value.items()}
        elif isinstance(value, int | float):
            found[key.replace("_", " ")] = value
    return found


def _cell(values: list[float]) -> str:
    """Return the mean, and the deviation of several values."""
    if not values:
        return ""
    digits = 3 if abs(values[0]) <= 1 else 0
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{deviation}"


if __name__ == "__main__":
    main()
