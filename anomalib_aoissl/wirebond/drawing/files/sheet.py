# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0
"""Contact sheets: bright field, dark field and labels of many units side by side, with a legend."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from anomalib_aoissl.visualization.overlay import overlay_mask, palette

from ..devices import CLASS_NAMES
from ..rendering import Drawing
from .unit_files import LIGHTING_CHANNELS

_TITLES = ("bright field", "dark field", "labels")
_GAP = 6


def contact_sheet(drawings: Mapping[str, Drawing] | str | Path, *, cell: int = 256, columns: int = 2) -> Image.Image:
    """Return an RGB picture with bright field, dark field and label overlay of each unit, and a legend on top.

    Args:
        drawings: Drawings by caption, or a folder that ``write_images`` has written: the first of each device type.
        cell: Width of one view in px.
        columns: Number of units side by side.

    Raises:
        ValueError: If there is nothing to show, or a number is below its least value.
    """
    if cell < 64 or columns < 1:
        msg = f"cell is {cell}, columns {columns}; give at least 64 and 1."
        raise ValueError(msg)
    units = dict(drawings) if isinstance(drawings, Mapping) else read_drawings(drawings)
    if not units:
        msg = "There are no drawings to show; give at least one, or a folder that write_images has written."
        raise ValueError(msg)
    rows = -(-len(units) // columns)
    first = next(iter(units.values()))
    height = round(cell * first.mask.shape[0] / first.mask.shape[1])
    size = max(13, cell // 16)
    block = (3 * (cell + _GAP) + 2 * _GAP, height + size + 3 * _GAP)
    top = 2 * (size + 2 * _GAP)
    sheet = Image.new("RGB", (columns * block[0] + _GAP, rows * block[1] + top), "white")
    _legend(sheet, size, columns, block[0], cell)
    for number, (caption, unit) in enumerate(units.items()):
        corner = (_GAP + number % columns * block[0], top + number // columns * block[1])
        _unit(sheet, corner, caption, unit, (cell, height), size)
    return sheet


def read_drawings(root: str | Path) -> dict[str, Drawing]:
    """Return the first unit of each device type in a folder that ``write_images`` has written, by stem."""
    root = Path(root)
    path = root / "dataset.json"
    if not path.exists():
        msg = f"{path} does not exist; give a folder that write_images has finished writing."
        raise ValueError(msg)
    groups: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))["groups"]
    units: dict[str, Drawing] = {}
    first: dict[str, str] = {}
    for stem, device in groups.items():
        first.setdefault(device, stem)
    for stem in first.values():
        views = [_read(root / "images" / f"{stem}{channel}.png") for channel in LIGHTING_CHANNELS]
        units[stem] = Drawing(views[0], views[1], _read(root / "masks" / f"{stem}.png"))
    return units


def _read(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image).astype(np.uint8)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _legend(sheet: Image.Image, size: int, columns: int, width: int, cell: int) -> None:
    """Write the names of the classes with their colours, and the titles of the views below."""
    pen = ImageDraw.Draw(sheet)
    x = 2 * _GAP
    for name, color in list(zip(CLASS_NAMES, palette(len(CLASS_NAMES)).tolist(), strict=False))[1:]:
        pen.rectangle((x, _GAP + 2, x + size, _GAP + 2 + size), fill=tuple(color))
        pen.text((x + size + _GAP, _GAP), name, fill="black", font=_font(size))
        x += size + 4 * _GAP + round(pen.textlength(name, font=_font(size)))
    for column in range(columns):
        for view, title in enumerate(_TITLES):
            place = (_GAP + column * width + view * (cell + _GAP), size + 3 * _GAP)
            pen.text(place, title, fill=(90, 90, 90), font=_font(size - 2))


def _unit(
    sheet: Image.Image, corner: tuple[int, int], caption: str, unit: Drawing, cell: tuple[int, int], size: int
) -> None:
    """Paste the three views of one unit with its caption."""
    pen = ImageDraw.Draw(sheet)
    pen.text(corner, caption, fill="black", font=_font(size))
    grey = np.repeat(unit.bright_field[..., np.newaxis], 3, axis=2)
    views = (unit.bright_field, unit.dark_field, overlay_mask(grey, unit.mask, len(CLASS_NAMES)))
    for number, view in enumerate(views):
        picture = Image.fromarray(view).convert("RGB").resize(cell, Image.Resampling.LANCZOS)
        sheet.paste(picture, (corner[0] + number * (cell[0] + _GAP), corner[1] + size + _GAP))
