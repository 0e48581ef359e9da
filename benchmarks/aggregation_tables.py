# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The tables of `aggregation.py`, in Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

Seeds = list[dict[str, dict[str, float]]]
"""Of each seed: the numbers of each row by name."""


class Rows(NamedTuple):
    """Names of the rows of each table."""

    ways: dict[str, str]  # with their labels
    rules: list[str]
    grids: list[tuple[int, int]]
    smoothing: dict[str, str]  # with their labels
    directions: list[str]


def tables(columns: dict[str, Seeds], rows: Rows, thin: dict[str, str]) -> Iterator[str]:
    """Yield the lines of all tables, with a column for each set and number of shots.

    Args:
        columns: Seeds of each set and number of shots, by name; the set's name ends at a comma.
        rows: The rows.
        thin: Thin class of each set.
    """
    heads = {f"{name} ({thin[name.split(',')[0]]})": seeds for name, seeds in columns.items()}
    yield from table("Aggregation", heads, rows.ways)
    default = {"attention 12 0.02": "the defaults: attention, k=12, temperature 0.02"}
    yield from table("Rules for a class", heads, {**default, **{name: name for name in rows.rules}})
    names = {f"{bank} {query}": f"bank {bank}, query {query}" for bank, query in rows.grids}
    yield from table("Patch grids", heads, names, costs=True)
    yield from table("Smoothing", heads, rows.smoothing)
    yield from table("Positions", heads, {"1 1": "positions stay", **{n: f"{n} taken out" for n in rows.directions}})
    yield from table("Whole images", heads, {"1 1": "patches", **{n: n for n in ("class token", "mean of patches")}})
    yield from classes(columns, names)


def table(title: str, columns: dict[str, Seeds], rows: dict[str, str], costs: bool = False) -> Iterator[str]:
    """Yield a table of mean IoU, its deviation over the seeds, and the IoU of the thin class in brackets."""
    extra: dict[str, Callable[[Seeds, str], str]] = {
        "CPU time of an image / plain": _ratio,
        "bank / encoder": lambda seeds, row: f"{statistics.median(seed[row]['build'] for seed in seeds):.2f}",
        "AUROC of novelty": lambda seeds, row: f"{_mean(seeds, row, 'auroc'):.3f}",
    }
    if not costs:
        extra = {}
    yield from _head(title, [*columns, *extra])
    everything = [seed for seeds in columns.values() for seed in seeds]
    for row, label in rows.items():
        cells = [_cell(seeds, row) for seeds in columns.values()]
        yield f"| {label} | {' | '.join([*cells, *(number(everything, row) for number in extra.values())])} |"


def classes(columns: dict[str, Seeds], rows: dict[str, str]) -> Iterator[str]:
    """Yield a table of the IoU of each class for each set and number of shots."""
    for name, seeds in columns.items():
        known = [key for key in seeds[0]["1 1"] if key not in {"mean", "thin", "seconds", "auroc", "build"}]
        yield from _head(f"IoU of each class: {name}", known)
        for row, label in rows.items():
            yield f"| {label} | {' | '.join(f'{_mean(seeds, row, key):.1f}' for key in known)} |"


def _head(title: str, heads: list[str]) -> Iterator[str]:
    yield f"\n{title}\n"
    yield f"| | {' | '.join(heads)} |"
    yield f"| --- |{' --- |' * len(heads)}"


def _mean(seeds: Seeds, row: str, number: str) -> float:
    return statistics.mean(seed[row].get(number, 0.0) for seed in seeds)


def _cell(seeds: Seeds, row: str) -> str:
    values = [seed[row]["mean"] for seed in seeds]
    spread = f" ± {statistics.pstdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread} ({_mean(seeds, row, 'thin'):.1f})"


def _ratio(seeds: list[Any], row: str) -> str:
    values = [seed[row]["seconds"] / seed["1 1"]["seconds"] for seed in seeds]
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"
