# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Plots of a study: claims with their spread, curves over labels and over seconds, IoU of each class."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .claims import Comparison
from .rows import Row, grouped, our_or_peer, spread, told_apart

_COLOURS = {"yes": "#1b7837", "no": "#b2182b", "no difference": "#555555", "not decided": "#aaaaaa"}
_COLUMNS = 3
_MOST_SETTINGS = 60


def claim_figure(comparisons: Sequence[Comparison]) -> Figure | None:
    """Return a line for each setting: its mean difference and twice its standard error; None where there is none."""
    lines = [(comparison, setting) for comparison in comparisons for setting in comparison.settings][:_MOST_SETTINGS]
    if not lines:
        return None
    figure = Figure(figsize=(9, 1.0 + 0.26 * len(lines)), layout="constrained")
    axes = figure.subplots()
    for place, (comparison, setting) in enumerate(lines):
        error = 0.0 if math.isnan(setting.error) else 2 * setting.error
        style: dict[str, Any] = {"color": _COLOURS[setting.verdict], "capsize": 3}
        axes.errorbar(setting.difference, place, xerr=error, fmt="o", markersize=4, **style)
        if comparison.margin:
            axes.plot([-comparison.margin] * 2, [place - 0.4, place + 0.4], color="#888888", linestyle=":")
    axes.axvline(0, color="black", linewidth=0.8)
    names = [f"{comparison.first} - {comparison.second}: {setting.name}" for comparison, setting in lines]
    axes.set_yticks(range(len(lines)), names, fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("difference, mean over the seeds ± 2 standard errors (green: yes, red: no, grey: open)", fontsize=8)
    axes.grid(axis="x", alpha=0.3)
    return figure


def labels_figure(rows: Sequence[Row]) -> Figure | None:
    """Return mean IoU over the number of labelled images, a plot for each set."""
    return _by_set(_compared(rows), _draw_labels)


def seconds_figure(rows: Sequence[Row]) -> Figure | None:
    """Return mean IoU over CPU seconds of the fit, a plot for each set, at its most measured number of labels."""
    return _by_set(_compared(rows), _draw_seconds)


def overview_figure(rows: Sequence[Row]) -> Figure | None:
    """Return both curves of the set that most runs are of."""
    sets = grouped(_compared(rows), lambda row: row.set)
    if not sets:
        return None
    name = max(sets, key=lambda each: len(sets[each]))
    figure = Figure(figsize=(9, 4), layout="constrained")
    both, styles = figure.subplots(1, 2, sharey=True), _styles(sets[name])
    for axes, draw in zip(both, (_draw_labels, _draw_seconds), strict=True):
        draw(axes, sets[name], styles)
        axes.grid(alpha=0.3)
    both[0].set_ylabel("mean IoU, pixels pooled")
    figure.suptitle(name)
    handles = {label: handle for handle, label in zip(*both[0].get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, fontsize=7)
    return figure


def _draw_labels(axes: Axes, chosen: list[Row], styles: dict[str, Any]) -> None:
    for model, line in grouped(chosen, lambda row: row.model).items():
        budget = max(row.budget for row in line)
        longest = [row for row in line if row.budget == budget]
        points = sorted(grouped(longest, lambda row: row.labels).items())
        values = [spread([row.value for row in group]) for _, group in points]
        xs, means = [labels for labels, _ in points], [value.mean for value in values]
        deviations, name = [value.deviation for value in values], _called(longest[0])
        axes.errorbar(xs, means, deviations, label=name, capsize=2, **styles[model])
    axes.set_xscale("log")
    ticks = sorted({row.labels for row in chosen})
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("labelled images")


def _draw_seconds(axes: Axes, chosen: list[Row], styles: dict[str, Any]) -> None:
    labels = _usual_labels(chosen)
    timed = [row for row in chosen if row.labels == labels and not math.isnan(row.seconds)]
    for model, line in grouped(timed, lambda row: row.model).items():
        groups = sorted(grouped(line, lambda row: row.budget).items())
        seconds = [max(spread([row.seconds for row in group]).mean, 0.1) for _, group in groups]
        values = [spread([row.value for row in group]) for _, group in groups]
        means = [value.mean for value in values]
        axes.errorbar(seconds, means, [value.deviation for value in values], label=model, capsize=2, **styles[model])
    axes.set_xscale("log")
    axes.set_xlabel(f"CPU seconds of the fit, {labels} labelled")


def pretraining_figure(rows: Sequence[Row]) -> Figure | None:
    """Return mean IoU over CPU minutes of pretraining, a plot for each set and model; other weights are lines."""
    trained = [row for row in _masks(rows) if row.pretraining_seconds]
    if not trained:
        return None
    known = [row for row in _masks(rows) if row.pretraining_seconds or row.weights in {"random", "drawn", "shipped"}]
    places = {(row.set, row.model, row.labels) for row in trained}
    chosen = [row for row in known if (row.set, row.model, row.labels) in places]
    return _by_set([replace(row, set=f"{row.set}, {row.model}") for row in chosen], _draw_pretraining)


def _draw_pretraining(axes: Axes, here: list[Row], styles: dict[str, Any]) -> None:
    del styles
    labels = _usual_labels([row for row in here if row.pretraining_seconds])
    shown: list[float] = []
    others: dict[str, float] = {}
    for weights, group in grouped((row for row in here if row.labels == labels), lambda row: row.weights).items():
        value = spread([row.value for row in group])
        minutes = spread([row.pretraining_seconds for row in group]).mean / 60
        if minutes:
            shown.append(minutes)
            bars = axes.errorbar(minutes, value.mean, value.deviation, fmt="o", markersize=4, capsize=2)
            style: dict[str, Any] = {"fontsize": 6, "color": bars[0].get_color(), "textcoords": "offset points"}
            axes.annotate(weights, (minutes, value.mean), (5, 2), **style)
        else:
            axes.axhline(value.mean, linestyle=":", color="#777777")
            others[weights] = value.mean
    _name_lines(axes, others)
    axes.set_xscale("log")
    axes.set_xlim(min(shown) / 3, max(shown) * 5)  # names stand at the right
    ticks: list[float] = []
    for minutes in sorted(shown):
        if not ticks or minutes > 1.15 * ticks[-1]:  # names of nearer ones would cover each other
            ticks.append(minutes)
    axes.set_xticks(ticks, [f"{minutes:.0f}" if minutes > 10 else f"{minutes:.2g}" for minutes in ticks])
    axes.minorticks_off()
    axes.set_xlabel(f"CPU minutes of pretraining, {labels} labelled")


def _name_lines(axes: Axes, lines: dict[str, float]) -> None:
    """Write the names of level lines at the left; those of lines that nearly lie on each other share a place."""
    low, high = axes.get_ylim()
    named: list[tuple[float, list[str]]] = []
    for name, value in sorted(lines.items(), key=lambda line: -line[1]):
        if named and named[-1][0] - value < (high - low) / 25:
            named[-1][1].append(name)
        else:
            named.append((value, [name]))
    place: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
    for value, names in named:
        axes.annotate(", ".join(names), (0.01, value), (0, 2), fontsize=6, **place)


def classes_figure(rows: Sequence[Row]) -> Figure | None:
    """Return the IoU of each class by model, a table for each set, at its most measured number of labels."""

    def draw(axes: Axes, chosen: list[Row], styles: dict[str, Any]) -> None:
        del styles
        labels = _usual_labels(chosen)
        lines = grouped((row for row in chosen if row.labels == labels), _called)
        names = list(dict.fromkeys(name for group in lines.values() for row in group for name in row.classes))
        table = np.full((len(lines), len(names)), np.nan)
        for place, group in enumerate(lines.values()):
            for column, name in enumerate(names):
                found = [row.classes[name] for row in group if name in row.classes]
                table[place, column] = spread(found).mean if found else np.nan
        axes.imshow(table, vmin=0, vmax=1, cmap="RdYlGn", aspect="auto")
        for (place, column), value in np.ndenumerate(table):
            axes.text(column, place, "" if np.isnan(value) else f"{value:.2f}", ha="center", va="center", fontsize=6)
        axes.set_xticks(range(len(names)), names, rotation=40, ha="right", fontsize=6)
        axes.set_yticks(range(len(lines)), list(lines), fontsize=6)
        axes.grid(visible=False)

    known = [row for row in _compared(rows) if row.classes]
    return _by_set(known, draw, y_label="", legend=False)


def novelty_figure(rows: Sequence[Row]) -> Figure | None:
    """Return the AUROC of each defect by model."""
    chosen = told_apart(row for row in rows if row.kind == "novelty")
    if not chosen:
        return None
    models = grouped(chosen, lambda row: row.model)
    defects = ["all", *dict.fromkeys(name for row in chosen for name in row.classes)]
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(models)
    for place, (model, group) in enumerate(models.items()):
        values = [spread([row.value for row in group])]
        values += [spread([row.classes[name] for row in group if name in row.classes]) for name in defects[1:]]
        xs = np.arange(len(defects)) + (place - (len(models) - 1) / 2) * width
        heights, errors = [value.mean for value in values], [value.deviation for value in values]
        axes.bar(xs, heights, width, yerr=errors, capsize=2, label=model)
    axes.axhline(0.5, color="black", linewidth=0.8, linestyle=":")
    axes.set_xticks(range(len(defects)), defects)
    axes.set_ylabel("AUROC of images (0.5: chance)")
    axes.set_ylim(0, 1.02)
    axes.legend(fontsize=7)
    return figure


def _by_set(
    rows: Sequence[Row],
    draw: Callable[[Axes, list[Row], dict[str, Any]], None],
    *,
    y_label: str = "mean IoU, pixels pooled",
    legend: bool = True,
) -> Figure | None:
    """Return a figure with a plot for each set; a model looks the same in all of them."""
    sets = grouped(rows, lambda row: row.set)
    if not sets:
        return None
    columns = min(len(sets), _COLUMNS)
    lines = -(-len(sets) // columns)
    figure = Figure(figsize=(4.2 * columns + (0 if legend else 1.2), 3.6 * lines), layout="constrained")
    every = figure.subplots(lines, columns, squeeze=False).flatten()
    styles = _styles(rows)
    for axes, (name, chosen) in zip(every, sets.items(), strict=False):
        draw(axes, chosen, styles)
        axes.set_title(name, fontsize=9)
        axes.set_ylabel(y_label, fontsize=8)
        axes.tick_params(labelsize=7)
        if legend:
            axes.grid(alpha=0.3)
    for axes in every[len(sets) :]:
        axes.axis("off")
    found = {label: handle for axes in every for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    if legend and found:
        figure.legend(found.values(), found.keys(), loc="outside lower center", ncols=4, fontsize=7)
    return figure


def _styles(rows: Iterable[Row]) -> dict[str, Any]:
    """Return how each model's line looks: ours solid, peers dashed."""
    colours: Any = mpl.colormaps["tab20"].colors  # type: ignore[attr-defined] # a listed one
    found: dict[str, Any] = {}
    for row in rows:
        if row.model not in found:
            style = {"linestyle": "--" if row.is_peer else "-", "marker": "s" if row.is_peer else "o", "markersize": 4}
            found[row.model] = {**style, "color": colours[(2 * len(found)) % 20 + len(found) // 10]}
    return found


def _called(row: Row) -> str:
    """Return what a run's model is called, with its budget."""
    return f"{row.model}, {row.budget:g} s" if row.budget else row.model


def _usual_labels(rows: Sequence[Row]) -> int:
    """Return the number of labelled images that most models were measured with, the larger of two."""
    models = {labels: len({row.model for row in group}) for labels, group in grouped(rows, lambda r: r.labels).items()}
    return max(models, key=lambda labels: (models[labels], labels))


def _compared(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of masks that models are compared by; a model with other weights is another one."""
    return told_apart(our_or_peer(_masks(rows)))


def _masks(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if row.kind == "masks"]
