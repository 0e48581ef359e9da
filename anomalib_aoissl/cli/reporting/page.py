# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The page of a study as Markdown and as HTML, with its pictures beside it."""

from __future__ import annotations

import html
import itertools
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from anomalib_aoissl.data.files import save_picture, whole_file, write_text

from . import plots
from .claims import CLAIMS, LEAST_SEEDS
from .gallery import failures, gallery
from .rows import ReportError, Row, grouped, our_or_peer, read_rows, spread, told_apart

_RULE = (
    "A difference is taken seed by seed, on the same labelled images. It counts where it is larger than twice its "
    f"standard error over {LEAST_SEEDS} seeds or more; fewer decide nothing. With three seeds this is an interval of "
    "82 %, not of 95 %: without any difference, one setting in eleven says yes by chance, and one in eleven no. 'As "
    "good as' and 'on par' allow the margin of the dotted marks. Mean IoU pools the pixels of the test images. Seconds "
    "are CPU seconds of the process."
)


@dataclass(frozen=True)
class Block:
    """A part of the page: a heading, a text, a table's rows with the head first, or a picture with its caption."""

    kind: str
    content: str | list[list[str]]
    caption: str = ""


def write_report(csv_path: Path, folder: Path) -> list[Path]:
    """Write report.md, report.html and their pictures, and return the files.

    Raises:
        ReportError: If the CSV cannot be read, or holds no result.
    """
    found = read_rows(csv_path)
    rows = [row for row in found if math.isfinite(row.value)]
    if not rows:
        which = "that is a number" if found else "yet"
        msg = f"{csv_path}: holds no result {which}. Let benchmarks.study finish some jobs first."
        raise ReportError(msg)
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    blocks = [
        *_head(rows, csv_path, len(found) - len(rows)),
        *_glance(rows, folder, written),
        *_claims(rows, folder, written),
        *_curves(rows, folder, written),
    ]
    blocks += [*_pictures(rows, csv_path.parent, folder, written), *_tables(rows), *_missing(csv_path)]
    write_text(folder / "report.md", _markdown(blocks))
    write_text(folder / "report.html", _html(blocks))
    return [folder / "report.md", folder / "report.html", *written]


# --- parts -----------------------------------------------------------------------------------------------------------


def _head(rows: Sequence[Row], csv_path: Path, left_out: int) -> list[Block]:
    """Return the title, where the numbers come from, and how many runs have none."""
    facts = {
        name: sorted({row.source.get(name, "") for row in rows} - {""}) for name in ("commit", "machine", "versions")
    }
    said = "; ".join(f"{name}: {', '.join(values)}" for name, values in facts.items() if values)
    seeds, sets = sorted({row.seed for row in rows}), sorted({row.set for row in rows})
    runs = f"{len(rows)} runs on {', '.join(sets)}; seeds {', '.join(map(str, seeds))}."
    text = f"{runs} {said[:1].upper()}{said[1:]}. Each run's command, commit and machine stand in {csv_path.name}."
    without = f"Left out everywhere, since the result is not a number: {left_out} of {len(rows) + left_out} runs."
    return [Block("h1", "Study"), Block("p", text), *[Block("p", without)] * (left_out > 0), Block("p", _RULE)]


def _glance(rows: Sequence[Row], folder: Path, written: list[Path]) -> list[Block]:
    """Return the table and the picture that a README shows: our best model and the best peer at each set and labels."""
    table = [["set", "labelled", "ours", "mean IoU", "CPU s", "best peer", "mean IoU", "CPU s"]]
    masks = told_apart(row for row in our_or_peer(rows) if row.kind == "masks")
    for (name, labels), group in sorted(grouped(masks, lambda row: (row.set, row.labels)).items()):
        if best := _best(group):
            table.append([name, str(labels), *_cells(best[0]), *_cells(best[1])])
    if len(table) == 1:
        return []
    caption = "Mean IoU over labelled images and over CPU seconds, on the set that most runs are of"
    figure = _figure(plots.overview_figure(rows), "overview.png", caption, folder, written)
    return [Block("h2", "At a glance"), Block("table", table), *figure]


def _best(rows: Sequence[Row]) -> tuple[list[Row], list[Row]] | None:
    """Return the runs of our best model and of the best peer, None where no two of them share a seed.

    They are compared on the most seeds that one of ours and a peer share. Models without one of these, such as those of
    which a single seed is measured yet, are left out: a lucky seed is no mean.
    """
    sides = [_models(row for row in rows if row.is_peer is peer) for peer in (False, True)]
    shared = [_seeds(ours) & _seeds(peer) for ours, peer in itertools.product(*sides)]
    seeds = min(shared, key=lambda each: (-len(each), sorted(each)), default=set())
    if not seeds:
        return None
    whole = [[[row for row in runs if row.seed in seeds] for runs in side if seeds <= _seeds(runs)] for side in sides]
    ours, peer = (max(side, key=lambda runs: spread([row.value for row in runs]).mean) for side in whole)
    return ours, peer


def _models(rows: Iterable[Row]) -> list[list[Row]]:
    """Return the runs of each model and budget."""
    return list(grouped(rows, lambda row: (row.model, row.budget)).values())


def _seeds(rows: Iterable[Row]) -> set[int]:
    return {row.seed for row in rows}


def _cells(runs: Sequence[Row]) -> list[str]:
    """Return name, mean IoU and seconds of a model."""
    value, seconds = spread([row.value for row in runs]), spread([row.seconds for row in runs])
    return [runs[0].model, value.text, f"{seconds.mean:.0f}"]


def _claims(rows: list[Row], folder: Path, written: list[Path]) -> list[Block]:
    """Return each claim with its plot and its sentences."""
    blocks = [Block("h2", "Claims")]
    for claim in CLAIMS:
        comparisons = claim.comparisons(rows)
        blocks.append(Block("h3", claim.title))
        blocks += [Block("p", comparison.sentence()) for comparison in comparisons]
        if not any(comparison.settings for comparison in comparisons):
            blocks.append(Block("p", "Not measured yet: the CSV has no runs of both sides."))
        blocks += _figure(plots.claim_figure(comparisons), f"{claim.name}.png", claim.title, folder, written)
    return blocks


def _curves(rows: Sequence[Row], folder: Path, written: list[Path]) -> list[Block]:
    """Return the curves and the tables of classes."""
    named = (
        ("labels", "Mean IoU over labelled images (± standard deviation over the seeds)", plots.labels_figure),
        ("seconds", "Mean IoU over CPU seconds of the fit", plots.seconds_figure),
        ("classes", "IoU of each class", plots.classes_figure),
        ("pretraining", "Mean IoU over CPU minutes of pretraining", plots.pretraining_figure),
        ("novelty", "Novelty of drawn defects", plots.novelty_figure),
    )
    blocks = [Block("h2", "Curves")]
    for name, caption, make in named:
        blocks += _figure(make(rows), f"{name}.png", caption, folder, written)
    return blocks


def _pictures(rows: Sequence[Row], source: Path, folder: Path, written: list[Path]) -> list[Block]:
    """Return the gallery, and the pictures on which the pixel head is worst."""
    sets = list(dict.fromkeys(row.set for row in rows if row.kind == "masks"))
    blocks, worst = [Block("h2", "The same pictures through every model")], [Block("h2", "Failures, shown on purpose")]
    for number, name in enumerate(sets):
        sheet = gallery(rows, source, name)
        if sheet is not None:
            blocks.append(_image(sheet, f"gallery_{number}.png", f"{name}; mean IoU of the picture", folder, written))
        failure = failures(rows, source, name)
        if failure is not None:
            worst.append(_image(failure[0], f"failure_{number}.png", failure[1], folder, written))
    worst += [Block("p", f"Where this package is behind: {text}.") for text in _behind(rows)]
    return [*(blocks if len(blocks) > 1 else []), *(worst if len(worst) > 1 else [])]


def _behind(rows: Sequence[Row]) -> list[str]:
    """Return the sets and labels at which a peer's mean is above that of all our models, on the same seeds."""
    said = []
    masks = told_apart(row for row in our_or_peer(rows) if row.kind == "masks")
    for (name, labels), group in grouped(masks, lambda row: (row.set, row.labels)).items():
        if best := _best(group):
            ours, peer = (spread([row.value for row in runs]).mean for runs in best)
            if peer > ours:
                names = [runs[0].model for runs in best]
                said.append(f"{name}, {labels} labelled: {names[1]} {peer:.3f}, {names[0]} {ours:.3f}")
    return said


def _tables(rows: Sequence[Row]) -> list[Block]:
    """Return mean and deviation of each model, weights, labels and budget, a table for each set."""
    blocks = [Block("h2", "Numbers")]
    for (kind, name), group in grouped(rows, lambda row: (row.kind, row.set)).items():
        value = "mean IoU" if kind == "masks" else "AUROC"
        table = [["labelled", "model", "weights", "budget, s", "seeds", value, "CPU s of the fit"]]
        keyed = grouped(group, lambda row: (row.labels, row.model, row.weights, row.budget))
        for (labels, model, weights, budget), runs in sorted(keyed.items()):
            values, seconds = spread([row.value for row in runs]), spread([row.seconds for row in runs])
            cells = [str(labels), model, weights, f"{budget:g}" if budget else "", str(values.number)]
            table.append([*cells, values.text, f"{seconds.mean:.0f}"])
        blocks += [Block("h3", f"{name}, {kind}"), Block("table", table)]
    return blocks


def _missing(csv_path: Path) -> list[Block]:
    """Return what the study's plan has and the CSV has not."""
    path = csv_path.with_suffix(".missing.txt")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    if not lines:
        return []
    table = [["job", "why"], *(line.partition("\t")[::2] for line in lines)]
    said = f"{len(lines)} jobs of the plan have no result; the claims above rest on the others."
    return [Block("h2", "What is missing"), Block("p", said), Block("table", [list(row) for row in table])]


# --- files -----------------------------------------------------------------------------------------------------------


def _figure(figure: Figure | None, name: str, caption: str, folder: Path, written: list[Path]) -> list[Block]:
    """Write a plot, where there is one."""
    if figure is None:
        return []
    with whole_file(folder / name) as temporary:
        figure.savefig(temporary, dpi=110, metadata={"Software": None})
    written.append(folder / name)
    return [Block("image", name, caption)]


def _image(picture: Image.Image, name: str, caption: str, folder: Path, written: list[Path]) -> Block:
    """Write a picture."""
    save_picture(folder / name, picture)
    written.append(folder / name)
    return Block("image", name, caption)


def _markdown(blocks: Iterable[Block]) -> str:
    """Return the page as Markdown."""
    parts = []
    for block in blocks:
        if isinstance(block.content, list):
            head, *lines = block.content
            rule = ["---"] * len(head)
            cells = [[cell.replace("|", "\\|") for cell in line] for line in (head, rule, *lines)]
            parts.append("\n".join(f"| {' | '.join(line)} |" for line in cells))
        elif block.kind == "image":
            parts.append(f"![{block.caption}]({block.content})\n\n*{block.caption}*")
        else:
            parts.append({"h1": "# ", "h2": "## ", "h3": "### "}.get(block.kind, "") + block.content)
    return "\n\n".join(parts) + "\n"


_STYLE = (
    "body{font-family:sans-serif;max-width:1100px;margin:2em auto;padding:0 1em;line-height:1.4}"
    "table{border-collapse:collapse;font-size:13px}td,th{border:1px solid #ccc;padding:2px 8px;text-align:left}"
    "img{max-width:100%}figcaption{color:#555;font-size:13px}figure{margin:1em 0}"
)


def _html(blocks: Iterable[Block]) -> str:
    """Return the page as HTML."""
    head = f'<meta charset="utf-8"><title>Study</title><style>{_STYLE}</style>'
    return (
        f"<!doctype html>\n<html><head>{head}</head><body>\n" + "\n".join(map(_element, blocks)) + "\n</body></html>\n"
    )


def _element(block: Block) -> str:
    """Return a block as an element."""
    if isinstance(block.content, list):
        tags = ["th", *["td"] * (len(block.content) - 1)]
        lines = [
            "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in line) + "</tr>"
            for tag, line in zip(tags, block.content, strict=True)
        ]
        return "<table>" + "\n".join(lines) + "</table>"
    text = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", html.escape(block.content, quote=False))
    if block.kind == "image":
        caption = html.escape(block.caption)
        return f'<figure><img src="{text}" alt="{caption}"><figcaption>{caption}</figcaption></figure>'
    return f"<{block.kind}>{text}</{block.kind}>"
