# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Plots of a study: what is drawn where, and that a model looks the same in all of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.container import ErrorbarContainer
from test_study_report import cells, table

from anomalib_aoissl.cli.reporting.plots import (
    classes_figure,
    labels_figure,
    novelty_figure,
    overview_figure,
    pretraining_figure,
    seconds_figure,
)
from anomalib_aoissl.cli.reporting.rows import read_rows


def lines(axes: Any) -> dict[str, tuple[list[float], list[float], str]]:
    """Return what is drawn by its label: places across, values, and colour."""
    found = {}
    for container in axes.containers:
        assert isinstance(container, ErrorbarContainer)
        line: Any = container[0]
        label = str(container.get_label())
        found[label] = list(map(float, line.get_xdata())), list(map(float, line.get_ydata())), to_hex(line.get_color())
    return found


def test_a_model_has_one_colour_and_its_longest_budget_stands_over_labels(tmp_path: Path) -> None:
    peer = {"weights": "none", "peer": True}
    unet = [
        cells("U-Net", [value], budget=budget, fit_seconds=budget, **peer) for budget, value in ((15, 0.2), (300, 0.8))
    ]
    ours = cells("pixel head", [0.9], fit_seconds=50)
    other = [cells("U-Net", [0.7], budget=300, fit_seconds=300, set="boards", **peer)]
    rows = read_rows(table(tmp_path, *unet, ours, *other))
    over_labels, over_seconds = labels_figure(rows), seconds_figure(rows)
    assert over_labels is not None
    assert over_seconds is not None
    wires, boards = over_labels.axes[:2]
    assert lines(wires)["U-Net, 300 s"][:2] == ([5], [0.8])
    assert set(lines(wires)) == {"U-Net, 300 s", "pixel head"}
    timed, timed_boards = over_seconds.axes[:2]
    assert lines(timed)["U-Net"][:2] == ([15, 300], [0.2, 0.8])
    colours = {lines(timed)["U-Net"][2], lines(timed_boards)["U-Net"][2]}
    assert colours == {lines(wires)["U-Net, 300 s"][2], lines(boards)["U-Net, 300 s"][2]}
    assert len(colours) == 1
    overview: Any = overview_figure(rows)
    assert lines(overview.axes[0])["U-Net, 300 s"][2] == lines(overview.axes[1])["U-Net"][2]


def test_a_model_with_two_weights_is_two_lines_of_two_looks(tmp_path: Path) -> None:
    more: dict[str, Any] = {"peer": True, "fit_seconds": 9, "class_iou": '{"wire": 0.5}'}
    probe = [cells("probe", [worth], weights, **more) for weights, worth in (("shipped", 0.8), ("dinov2", 0.4))]
    ours = cells("pixel head", [0.9], fit_seconds=9)
    rows = read_rows(table(tmp_path, *probe, ours))
    looks = set()
    for figure in (labels_figure(rows), seconds_figure(rows)):
        assert figure is not None
        found = lines(figure.axes[0])
        assert {name: values for name, (_, values, _) in found.items()} == {
            "probe, shipped": [0.8],
            "probe, dinov2": [0.4],
            "pixel head": [0.9],
        }
        looks |= {(name, colour) for name, (_, _, colour) in found.items()}
    assert len(looks) == len({colour for _, colour in looks}) == 3
    table_of_classes: Any = classes_figure(rows)
    named = [text.get_text() for text in table_of_classes.axes[0].get_yticklabels()]
    assert named == ["probe, shipped", "probe, dinov2"]
    novel = [[{**row, "kind": "novelty", "auroc": row["mean_iou"]} for row in group] for group in probe]
    bars: Any = novelty_figure(read_rows(table(tmp_path, *novel)))
    heights = {str(each.get_label()): each[0].get_height() for each in bars.axes[0].containers if len(each) == 1}
    assert heights == {"probe, shipped": 0.8, "probe, dinov2": 0.4}


def test_pretraining_has_a_plot_for_each_model_with_other_weights_as_lines(tmp_path: Path) -> None:
    groups = []
    for model, worth in (("pixel head", 0.8), ("vote by attention", 0.5)):
        groups += [cells(model, [worth], "random"), cells(model, [worth + 0.1], "shipped")]
        groups += [cells(model, [worth + 0.05], "MAE", pretraining_seconds=300)]
        groups += [cells(model, [worth + 0.07], "DINO", pretraining_seconds=310)]
        groups += [cells(model, [worth + 0.08], "MAE of 120 min", pretraining_seconds=7500)]
    groups += [cells("vote by attention", [0.5], "shipped", set="boards")]  # without pretraining, so without a plot
    figure: Any = pretraining_figure(read_rows(table(tmp_path, *groups)))
    assert [axes.get_title() for axes in figure.axes] == ["wires, pixel head", "wires, vote by attention"]
    for axes, worth in zip(figure.axes, (0.8, 0.5), strict=True):
        points = sorted((float(each[0].get_xdata()[0]), float(each[0].get_ydata()[0])) for each in axes.containers)
        assert np.allclose(points, [(5, worth + 0.05), (31 / 6, worth + 0.07), (125, worth + 0.08)])
        dotted = sorted(line.get_ydata()[0] for line in axes.get_lines() if line.get_linestyle() == ":")
        assert dotted == pytest.approx([worth, worth + 0.1])
        assert {text.get_text() for text in axes.texts} == {"random", "shipped", "MAE", "DINO", "MAE of 120 min"}
        assert [text.get_text() for text in axes.get_xticklabels()] == ["5", "125"]  # 5.2 would lie on 5
