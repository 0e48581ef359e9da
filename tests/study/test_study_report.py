# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The report of a study: its sentences against CSVs whose truth is known by construction."""

import csv
import json
import math
import statistics
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from anomalib_aoissl.cli.dispatching import run
from anomalib_aoissl.cli.reporting.claims import CLAIMS, Comparison, compare, decide
from anomalib_aoissl.cli.reporting.gallery import failures, gallery
from anomalib_aoissl.cli.reporting.rows import ReportError, Row, read_rows
from anomalib_aoissl.data.describing.class_colours import write_class_index_png

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = ("kind", "set", "model", "weights", "labels", "seed", "budget", "mean_iou")
MORE = ("class_iou", "image_iou", "auroc", "defects", "fit_seconds", "pretraining_seconds", "peer", "pictures")


def cells(model: str, values: list[float], weights: str = "shipped", **more: object) -> list[dict[str, object]]:
    """Rows of a model, a seed for each value."""
    common = {"kind": "masks", "set": "wires", "model": model, "weights": weights, "labels": 5, "budget": "", **more}
    return [{**common, "seed": seed, "mean_iou": value} for seed, value in enumerate(values)]


def table(folder: Path, *groups: list[dict[str, object]]) -> Path:
    path = folder / "study.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*COLUMNS, *MORE])
        writer.writeheader()
        writer.writerows(row for group in groups for row in group)
    return path


def outcomes(rows: list[Row], name: str) -> dict[tuple[str, str], Comparison]:
    claim = next(claim for claim in CLAIMS if claim.name == name)
    return {(comparison.first, comparison.second): comparison for comparison in claim.comparisons(rows)}


@pytest.mark.parametrize(
    ("differences", "rule", "margin", "verdict"),
    [
        ([0.05, 0.06, 0.04], "better", 0.0, "yes"),
        ([-0.05, -0.06, -0.04], "better", 0.0, "no"),
        ([0.05, -0.05, 0.01], "better", 0.0, "no difference"),
        ([0.05, 0.06], "better", 0.0, "not decided"),  # two seeds
        ([0.05, 0.05, 0.05], "better", 0.0, "not decided"),  # one run three times
        ([-0.004, -0.005, -0.003], "as good as", 0.01, "yes"),
        ([-0.04, -0.05, -0.03], "as good as", 0.01, "no"),
        ([-0.01, 0.02, -0.03], "as good as", 0.01, "not decided"),
        ([0.05, 0.06, 0.04], "as good as", 0.01, "yes"),
        ([0.001, -0.002, 0.002], "on par", 0.02, "yes"),
        ([0.05, 0.06, 0.04], "on par", 0.02, "no"),
        ([0.01, 0.03, 0.02], "on par", 0.02, "not decided"),
    ],
)
def test_the_rule_by_hand(differences: list[float], rule: str, margin: float, verdict: str) -> None:
    assert decide(differences, rule, margin) == verdict  # type: ignore[arg-type]


def test_the_rule_against_the_standard_error_of_scipy() -> None:
    generator = np.random.default_rng(0)
    for _ in range(200):
        values = generator.normal(generator.uniform(-0.05, 0.05), 0.03, int(generator.integers(3, 8)))
        mean, error = values.mean(), stats.sem(values)
        expected = "yes" if mean > 2 * error else "no" if mean < -2 * error else "no difference"
        assert decide(values.tolist(), "better") == expected


def test_seeds_are_matched_and_the_numbers_are_those_of_the_pairs(tmp_path: Path) -> None:
    first, second = [0.7, 0.5, 0.9, 0.1], [0.6, 0.45, 0.7]  # the fourth seed has no partner
    rows = read_rows(table(tmp_path, cells("a", first), cells("b", second)))
    setting = compare(rows, lambda r: r.model == "a", lambda r: r.model == "b", ("a", "b")).settings[0]
    differences = [one - other for one, other in zip(first, second, strict=False)]
    assert setting.difference == pytest.approx(statistics.fmean(differences))
    assert setting.error == pytest.approx(stats.sem(differences))
    assert (setting.name, setting.verdict) == ("wires, 5 labels", "yes")


def test_each_claim_finds_its_sides(tmp_path: Path) -> None:
    groups = [
        cells("vote by attention", [0.70, 0.71, 0.73], "MAE", pretraining_seconds=60),
        cells("vote by attention", [0.60, 0.62, 0.61], "DINO", pretraining_seconds=60),
        cells("vote by attention", [0.71, 0.70, 0.72], "iBOT", pretraining_seconds=60),
        cells("vote by attention", [0.50, 0.52, 0.51], "random"),
        cells("vote by attention", [0.80, 0.79, 0.82], "drawn"),
        cells("vote by attention", [0.75, 0.76, 0.74]),
        cells("vote by similarity", [0.751, 0.759, 0.742]),
        cells("U-Net", [0.60, 0.66, 0.64], "none", budget=60, peer="True"),
        cells("U-Net", [0.90, 0.93, 0.92], "none", budget=300, peer="True"),
        cells("pixel head", [0.85, 0.86, 0.83]),
        cells("vote by attention", [0.60, 0.50, 0.55], "MAE of 10 min", pretraining_seconds=600),
    ]
    novelty = {"kind": "novelty", "defects": '{"crack": 0.9}'}
    groups += [
        [{**row, "auroc": row.pop("mean_iou")} for row in cells(model, values, **novelty, **peer)]
        for model, values, peer in (
            ("novelty of the bank", [0.9, 0.91, 0.92], {}),
            ("PatchCore", [0.99, 0.98, 0.995], {"peer": "True"}),
        )
    ]
    rows = read_rows(table(tmp_path, *groups))
    assert {pair[1]: c.outcome for pair, c in outcomes(rows, "claim1").items()} == {
        "DINO": "held",
        "iBOT": "did not hold",
    }
    second = {pair: c.outcome for pair, c in outcomes(rows, "claim2").items()}
    assert second["MAE", "random"] == second["drawn", "random"] == second["drawn", "shipped"] == "held"
    assert second["MAE", "shipped"] == "did not hold"
    assert [c.outcome for c in outcomes(rows, "claim3").values()] == ["held"]
    fourth = outcomes(rows, "claim4")["vote by attention", "U-Net"]
    assert [(s.name, s.verdict) for s in fourth.settings] == [
        ("wires, 5 labels, 60 s", "yes"),
        ("wires, 5 labels, 300 s", "no"),
    ]
    assert fourth.outcome == "held in part"
    said = fourth.sentence()
    assert "vote by attention is better than U-Net: **held in part** (in 1 of 2 decided settings, the opposite" in said
    assert {s.verdict for s in outcomes(rows, "claim5")["pixel head", "U-Net"].settings} == {"yes", "no"}
    assert outcomes(rows, "claim6")["novelty of the bank", "PatchCore"].outcome == "did not hold"
    assert outcomes(rows, "claim7")["MAE of 10 min", "shipped"].outcome == "did not hold"
    assert outcomes(rows, "claim4")["vote by attention", "segmenter"].outcome == "not measured"


@pytest.mark.parametrize("order", [("shipped", "dinov2"), ("dinov2", "shipped")])
def test_other_weights_are_another_variant_in_any_order_of_rows(order: tuple[str, str], tmp_path: Path) -> None:
    ours = {"shipped": [0.90, 0.91, 0.92], "dinov2": [0.60, 0.61, 0.62]}
    theirs = {"shipped": [0.70, 0.72, 0.71], "dinov2": [0.85, 0.87, 0.86]}
    groups = [cells("novelty of the bank", ours[weights], weights, kind="novelty") for weights in order]
    groups += [cells("AnomalyDINO", theirs[weights], weights, kind="novelty", peer="True") for weights in order]
    rows = read_rows(table(tmp_path, *[[{**row, "auroc": row.pop("mean_iou")} for row in group] for group in groups]))
    found = outcomes(rows, "claim6")["novelty of the bank", "AnomalyDINO"]
    assert {setting.name: (round(setting.difference, 6), setting.verdict) for setting in found.settings} == {
        "wires, 5 labels, shipped - shipped": (0.2, "yes"),
        "wires, 5 labels, shipped - dinov2": (0.05, "yes"),
        "wires, 5 labels, dinov2 - shipped": (-0.1, "no"),
        "wires, 5 labels, dinov2 - dinov2": (-0.25, "no"),
    }
    assert "held in part** (in 2 of 4 decided settings, the opposite in 2; mean difference -0.025," in found.sentence()


def test_a_run_that_a_table_has_twice_counts_with_its_mean(tmp_path: Path) -> None:
    twice = [*cells("a", [0.5, 0.6]), *cells("a", [0.7])]
    for number, group in enumerate((twice, twice[::-1])):
        (tmp_path / str(number)).mkdir()
        rows = read_rows(table(tmp_path / str(number), group, cells("b", [0.1, 0.1])))
        setting = compare(rows, lambda r: r.model == "a", lambda r: r.model == "b", ("a", "b")).settings[0]
        assert setting.difference == pytest.approx(0.5)  # of 0.5 and 0.5


def test_a_peer_with_two_weights_is_two_on_the_page_and_in_the_gallery(tmp_path: Path) -> None:
    for name in ("tested/0.jpg", "tested/0_truth.png", "a/0.png", "b/0.png", "c/0.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    probe = [
        cells("linear probe", values, weights, peer="True", pictures=f"tested {folder}", fit_seconds=1)
        for values, weights, folder in (([0.80, 0.81, 0.82], "shipped", "b"), ([0.40, 0.41, 0.42], "dinov2", "c"))
    ]
    path = table(tmp_path, cells("pixel head", [0.7, 0.71, 0.72], pictures="tested a", fit_seconds=30), *probe)
    assert run("report", [str(path), "--output", str(tmp_path / "report")]) == 0
    text = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert "| wires | 5 | pixel head | 0.710 ± 0.010 | 30 | linear probe, shipped | 0.810 ± 0.010 | 1 |" in text
    assert "wires, 5 labelled: linear probe, shipped 0.810, pixel head 0.710" in text  # where we are behind
    with Image.open(tmp_path / "report" / "gallery_0.png") as sheet:
        assert sheet.width == 5 * 266  # picture, truth, the head, and the probe twice


def at_a_glance(folder: Path, *groups: list[dict[str, object]]) -> tuple[list[str], list[str]]:
    """Return the lines of the table at a glance, and where this package is behind."""
    path = table(folder, *groups)
    assert run("report", [str(path), "--output", str(folder / "report"), "--overwrite"]) == 0
    text = (folder / "report" / "report.md").read_text(encoding="utf-8")
    lines = text.partition("## At a glance\n\n")[2].partition("\n\n")[0].splitlines()[2:]
    return lines, [line for line in text.splitlines() if "is behind" in line]


def test_a_lucky_seed_is_not_the_best_peer(tmp_path: Path) -> None:
    more = {"fit_seconds": 1}
    ours = cells("pixel head", [0.7, 0.8, 0.9], **more)
    forest = cells("random forest", [0.69, 0.79, 0.89], "none", peer="True", **more)
    net = cells("U-Net", [0.5, 0.6, 0.88], "none", peer="True", budget=60, **more)
    lines, behind = at_a_glance(tmp_path, ours, forest, net[2:])  # its third seed alone
    assert lines == ["| wires | 5 | pixel head | 0.800 ± 0.100 | 1 | random forest | 0.790 ± 0.100 | 1 |"]
    assert behind == []
    lines, behind = at_a_glance(tmp_path, ours, net[2:])  # nothing else is there yet: both on that seed
    assert lines == ["| wires | 5 | pixel head | 0.900 | 1 | U-Net | 0.880 | 1 |"]
    assert behind == []
    better = cells("U-Net", [0.75, 0.85, 0.1], "none", peer="True", budget=60, **more)
    lines, behind = at_a_glance(tmp_path, ours, better[:2])
    assert lines == ["| wires | 5 | pixel head | 0.750 ± 0.071 | 1 | U-Net | 0.800 ± 0.071 | 1 |"]
    assert behind == ["Where this package is behind: wires, 5 labelled: U-Net 0.800, pixel head 0.750."]
    assert at_a_glance(tmp_path, ours[:1], net[2:]) == ([], [])  # no seed of both


def test_one_seed_has_no_deviation(tmp_path: Path) -> None:
    at_a_glance(tmp_path, cells("pixel head", [0.7], fit_seconds=9), cells("segmenter", [0.5, 0.5], fit_seconds=9))
    text = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert "| 5 | pixel head | shipped |  | 1 | 0.700 | 9 |" in text
    assert "| 5 | segmenter | shipped |  | 2 | 0.500 ± 0.000 | 9 |" in text


def test_the_command_writes_one_page_with_every_picture_it_names(tmp_path: Path) -> None:
    for number in range(2):  # the second test picture is the one on which the head fails
        (tmp_path / "tested").mkdir(exist_ok=True)
        Image.new("RGB", (40, 20), "grey").save(tmp_path / "tested" / f"{number}.jpg")
        write_class_index_png(tmp_path / "tested" / f"{number}_truth.png", np.eye(20, 40, dtype=np.uint8), 2)
        for name in ("head", "net"):
            write_class_index_png(tmp_path / name / f"{number}.png", np.zeros((20, 40), np.uint8), 2)
    more = {"class_iou": '{"background": 0.9, "wire": 0.2}', "fit_seconds": 20}
    ours = cells("pixel head", [0.7, 0.72, 0.71], pictures="tested head", image_iou="[0.9, 0.3]", **more)
    peer = {"peer": "True", "budget": 60, "pictures": "tested net", "image_iou": "[0.5, 0.6]"}
    path = table(tmp_path, ours, cells("U-Net", [0.8, 0.79, 0.83], "none", **peer, **more))
    path.with_suffix(".missing.txt").write_text("some-job\tfailed: no | disk\n", encoding="utf-8")
    folder = tmp_path / "report"
    assert run("report", [str(path), "--output", str(folder)]) == 0
    markdown, page = ((folder / name).read_text(encoding="utf-8") for name in ("report.md", "report.html"))
    pictures = sorted(file.name for file in folder.glob("*.png"))
    assert {"claim5.png", "labels.png", "seconds.png", "classes.png", "gallery_0.png", "failure_0.png"} <= set(pictures)
    for name in pictures:
        assert f"]({name})" in markdown
        assert f'src="{name}"' in page
    assert "pixel head is as good as U-Net: **did not hold**" in markdown
    assert "<strong>did not hold</strong>" in page
    assert "| 5 | pixel head | shipped |  | 3 | 0.710 ± 0.010 | 20 |" in markdown
    assert "test picture 1: the pixel head's mean IoU is 0.30 here; the best other model is U-Net with 0.60" in markdown
    assert "wires, 5 labelled: U-Net 0.807, pixel head 0.710" in markdown  # where we are behind
    assert "some-job" in markdown
    assert run("report", [str(path), "--output", str(folder)]) == 2  # nothing is replaced unasked
    assert run("report", [str(path), "--output", str(folder), "--overwrite"]) == 0


@pytest.mark.parametrize(
    ("scores", "worst", "middling"),
    [
        ([0.9, math.nan, 0.3, 0.6, math.nan], "test picture 2: the pixel head's mean IoU is 0.30 here.", 3),
        ([math.nan] * 5, None, 0),
    ],
)
def test_a_picture_whose_mask_counts_nowhere_is_neither_worst_nor_middling(
    scores: list[float], worst: str | None, middling: int, tmp_path: Path
) -> None:
    for number in range(5):  # each is grey of its own number
        (tmp_path / "tested").mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (40 * number,) * 3).save(tmp_path / "tested" / f"{number}.jpg")
        Image.new("RGB", (8, 8)).save(tmp_path / "tested" / f"{number}_truth.png")
        write_class_index_png(tmp_path / "head" / f"{number}.png", np.zeros((8, 8), np.uint8), 2)
    rows = read_rows(table(tmp_path, cells("pixel head", [0.7], pictures="tested head", image_iou=json.dumps(scores))))
    failure, sheet = failures(rows, tmp_path, "wires"), gallery(rows, tmp_path, "wires")
    assert (failure and failure[1]) == (worst and f"wires, {worst}")
    assert sheet is not None
    assert sheet.getpixel((130, 130)) == (40 * middling,) * 3  # the middle of the first tile


def test_one_row_is_enough_for_a_page(tmp_path: Path) -> None:
    path = table(tmp_path, cells("pixel head", [0.7]))
    assert run("report", [str(path), "--output", str(tmp_path / "report")]) == 0
    text = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert text.count("Not measured yet") == len(CLAIMS)


def test_what_is_not_a_number_is_left_out_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = {"class_iou": '{"background": 0.9, "wire": NaN}', "fit_seconds": 20}
    ours = cells("pixel head", [math.nan, 0.8, 0.9], **known)
    peer = cells("random forest", [0.1, 0.2, 0.3, math.inf], "none", peer="True", **known)
    peer[0]["fit_seconds"] = peer[1]["fit_seconds"] = ""
    path = table(tmp_path, ours, peer)
    assert run("report", [str(path), "--output", str(tmp_path / "report")]) == 0
    text = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert "Left out everywhere, since the result is not a number: 2 of 7 runs." in text
    assert "| 5 | pixel head | shipped |  | 2 | 0.850 ± 0.071 | 20 |" in text  # 0.1 / sqrt(2)
    assert "| 5 | random forest | none |  | 3 | 0.200 ± 0.100 | 20 |" in text  # seconds of the seed that has them
    path = table(tmp_path, ours[:1])
    assert run("report", [str(path), "--output", str(tmp_path / "none")]) == 2
    assert "holds no result that is a number. Let" in capsys.readouterr().err


def test_wrong_tables_are_errors_that_name_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = table(tmp_path, cells("pixel head", [0.7], labels="five"))
    with pytest.raises(ReportError, match=r"study.csv, line 2: .*'five'"):
        read_rows(path)
    path.write_text("set,model\n", encoding="utf-8")
    assert run("report", [str(path), "--output", str(tmp_path / "r")]) == 2
    assert "the columns ['kind'," in capsys.readouterr().err
    assert run("report", [str(table(tmp_path)), "--output", str(tmp_path / "r")]) == 2
    assert "holds no result yet" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()
    assert json.dumps(read_rows(table(tmp_path))) == "[]"


@pytest.mark.parametrize("study", ["study", "study_small"])
def test_the_report_in_the_documents_is_that_of_its_table(study: str) -> None:
    folder = ROOT / "docs" / "results" / study
    rows = read_rows(folder / "study.csv")
    text = (folder / "report.md").read_text(encoding="utf-8")
    assert text.startswith(f"# Study\n\n{len(rows)} runs on ")
    masks = [row for row in rows if row.kind == "masks" and row.model == "pixel head" and row.weights == "shipped"]
    for name in {row.set for row in masks}:
        values = [row.value for row in masks if row.set == name and row.labels in {4, 5}]
        assert f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}" in text


def test_the_readme_shows_the_table_of_the_report() -> None:
    report = (ROOT / "docs" / "results" / "study" / "report.md").read_text(encoding="utf-8")
    lines = report.partition("## At a glance\n\n")[2].partition("\n\n")[0]
    assert lines.count("\n") > 2
    assert f"\n{lines}\n" in (ROOT / "README.md").read_text(encoding="utf-8")
