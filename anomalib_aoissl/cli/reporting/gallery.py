# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The same test pictures through every model, and those where this package's answer is worst."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from anomalib_aoissl.data.describing.class_colours import palette

from .rows import Row, grouped, our_or_peer, told_apart

_OURS = "pixel head"
_TILE, _GAP, _TEXT = 260, 6, 18


def gallery(rows: Sequence[Row], folder: Path, set_name: str) -> Image.Image | None:
    """Return a test picture of a set, its truth, and the masks of all models, None where no masks were kept.

    The picture is that of middling difficulty for the pixel head, else the first.

    Args:
        rows: Of the study.
        folder: Of the CSV.
        set_name: The set.
    """
    chosen = _one_run_each(rows, set_name)
    if not chosen:
        return None
    ours = next((row for row in chosen if row.model == _OURS and row.images), None)
    ranked = [] if ours is None else _hardest_first(ours.images)
    index = ranked[len(ranked) // 2] if ranked else 0
    return _strip(chosen, folder, index)


def failures(rows: Sequence[Row], folder: Path, set_name: str) -> tuple[Image.Image, str] | None:
    """Return the test picture on which the pixel head is worst, through all models, and what it says; or None."""
    chosen = _one_run_each(rows, set_name)
    ours = next((row for row in chosen if row.model == _OURS and row.images), None)
    ranked = [] if ours is None else _hardest_first(ours.images)
    if ours is None or not ranked:
        return None
    index = ranked[0]
    strip = _strip(chosen, folder, index)
    others = {row.model: row.images[index] for row in chosen if row is not ours and len(row.images) > index}
    if strip is None:
        return None
    said = f"{set_name}, test picture {index}: the pixel head's mean IoU is {ours.images[index]:.2f} here"
    if others:
        best = max(others, key=lambda model: others[model])
        said += f"; the best other model is {best} with {others[best]:.2f}"
    return strip, said + "."


def _hardest_first(images: Sequence[float]) -> list[int]:
    """Return the indices of the test pictures by their mean IoU, without those whose mask is 255 everywhere."""
    return [int(index) for index in np.argsort(images, kind="stable") if not np.isnan(images[index])]


def _one_run_each(rows: Sequence[Row], set_name: str) -> list[Row]:
    """Return a run of each model on the same pictures: the labels and the seed that most models have."""
    masks = told_apart(row for row in our_or_peer(rows) if row.kind == "masks")
    kept = [row for row in masks if row.set == set_name and len(row.pictures) == 2]
    if not kept:
        return []
    places = grouped(kept, lambda row: (row.labels, row.seed))
    place = max(places, key=lambda key: (len({row.model for row in places[key]}), -key[1], key[0]))
    longest = grouped(sorted(places[place], key=lambda row: -row.budget), lambda row: row.model)
    return [group[0] for group in longest.values()]


def _strip(rows: Sequence[Row], folder: Path, index: int) -> Image.Image | None:
    """Return picture, truth and masks of one test picture side by side, None where files are missing."""
    tested = folder / rows[0].pictures[0]
    tiles = [("picture", tested / f"{index}.jpg"), ("truth", tested / f"{index}_truth.png")]
    for row in rows:
        said = f" {row.images[index]:.2f}" if len(row.images) > index else ""
        tiles.append((row.model + said, folder / row.pictures[1] / f"{index}.png"))
    found = [(name, _read(path)) for name, path in tiles if path.is_file()]
    if len(found) < 3:
        return None
    width, height = found[0][1].size
    cell = (_TILE, round(_TILE * height / width))
    columns = min(len(found), 5)
    lines = -(-len(found) // columns)
    sheet = Image.new("RGB", (columns * (cell[0] + _GAP), lines * (cell[1] + _TEXT + _GAP)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=13)
    for place, (name, tile) in enumerate(found):
        corner = (place % columns * (cell[0] + _GAP), place // columns * (cell[1] + _TEXT + _GAP))
        pen.text(corner, name, fill="black", font=font)
        sheet.paste(tile.resize(cell, Image.Resampling.NEAREST), (corner[0], corner[1] + _TEXT))
    return sheet


def _read(path: Path) -> Image.Image:
    """Return a picture, or a class-index mask in the classes' colours."""
    with Image.open(path) as image:
        if image.mode != "P":
            return image.convert("RGB")
        indices = np.asarray(image)
    return Image.fromarray(palette(8)[indices])
