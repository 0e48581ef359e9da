# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The rows of a study's CSV, and their means over seeds."""

from __future__ import annotations

import csv
import json
import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

NEEDED = ("kind", "set", "model", "weights", "labels", "seed", "budget", "mean_iou")


class ReportError(ValueError):
    """A CSV that no report can be made of; the message names the file and what is wrong."""


@dataclass(frozen=True)
class Row:
    """One run of a study.

    Attributes:
        kind: "masks" or "novelty".
        set: Name of the set.
        model: Name of the model.
        weights: Name of its encoder's weights.
        labels: Labelled images.
        seed: Seed.
        budget: CPU seconds of training that were given, 0 for a model that takes what it needs.
        value: Mean IoU of masks, or the images' AUROC of novelty; NaN where nothing counted.
        seconds: CPU seconds of the fit; NaN where unknown.
        is_peer: Whether the model is another package's.
        pretraining_seconds: CPU seconds of the weights' pretraining, 0 for none.
        classes: IoU of each class, or AUROC of each defect.
        images: Mean IoU of each test image.
        pictures: Folders of test pictures and of masks, or of novelty maps, from the CSV's folder.
        source: The whole row.
    """

    kind: str
    set: str
    model: str
    weights: str
    labels: int
    seed: int
    budget: float
    value: float
    seconds: float
    is_peer: bool
    pretraining_seconds: float
    classes: dict[str, float] = field(hash=False)
    images: tuple[float, ...]
    pictures: tuple[str, ...]
    source: dict[str, str] = field(hash=False)


class Spread(NamedTuple):
    """Mean, standard deviation and number of the values that are finite."""

    mean: float
    deviation: float
    number: int

    @property
    def text(self) -> str:
        """Mean and deviation; the mean alone where one value has no deviation."""
        return f"{self.mean:.3f}" + ("" if math.isnan(self.deviation) else f" ± {self.deviation:.3f}")


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a CSV; rows without a result are left out.

    Raises:
        ReportError: If the file cannot be read, lacks a column, or holds something else than a number in one.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            found = list(reader)
            missing = [name for name in NEEDED if name not in (reader.fieldnames or ())]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        msg = f"{path}: cannot be read as a study's CSV ({error})."
        raise ReportError(msg) from error
    if missing:
        msg = f"{path}: the columns {missing} are missing. Give the study.csv of benchmarks.study."
        raise ReportError(msg)
    rows = []
    for number, cells in enumerate(found, start=2):
        try:
            rows.append(_row(cells))
        except (ValueError, TypeError, AttributeError) as error:
            msg = f"{path}, line {number}: {error}. Write the CSV again: python -m benchmarks.study --merge."
            raise ReportError(msg) from error
    return [row for row in rows if row is not None]


def _row(cells: dict[str, str]) -> Row | None:
    """Return a row, None where nothing was measured."""
    novelty = cells["kind"] == "novelty"
    value = cells.get("auroc") if novelty else cells["mean_iou"]
    if not value:
        return None
    each = json.loads((cells.get("defects") if novelty else cells.get("class_iou")) or "{}")
    return Row(
        kind=cells["kind"],
        set=cells["set"],
        model=cells["model"],
        weights=cells["weights"],
        labels=int(cells["labels"]),
        seed=int(cells["seed"]),
        budget=float(cells["budget"] or 0),
        value=float(value),
        seconds=float(cells.get("fit_seconds") or "nan"),
        is_peer=cells.get("peer") == "True",
        pretraining_seconds=float(cells.get("pretraining_seconds") or 0),
        classes={name: float(number) for name, number in each.items()},
        images=tuple(json.loads(cells.get("image_iou") or "[]")),
        pictures=tuple((cells.get("pictures") or "").split()),
        source=dict(cells),
    )


def grouped(rows: Iterable[Row], key: Callable[[Row], Any]) -> dict[Any, list[Row]]:
    """Return the rows by a key, in the order in which keys come first."""
    found: dict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        found[key(row)].append(row)
    return dict(found)


def told_apart(rows: Iterable[Row]) -> list[Row]:
    """Return the rows with the weights in a model's name, for the models that they have with several weights."""
    rows = list(rows)
    several = {
        m for m, group in grouped(rows, lambda row: row.model).items() if len({row.weights for row in group}) > 1
    }
    return [replace(row, model=f"{row.model}, {row.weights}") if row.model in several else row for row in rows]


def spread(values: Sequence[float]) -> Spread:
    """Return mean (NaN for no value), standard deviation (NaN for one value) and number of the finite values."""
    known = [value for value in values if math.isfinite(value)]
    deviation = statistics.stdev(known) if len(known) > 1 else math.nan
    return Spread(statistics.fmean(known) if known else math.nan, deviation, len(known))


def our_or_peer(rows: Iterable[Row]) -> list[Row]:
    """Return the rows that models are compared by: peers, and ours with the shipped weights."""
    return [row for row in rows if row.is_peer or row.weights == "shipped"]
