# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Measured parts as a CSV, and as a picture with the number and the centre line of each part."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from anomalib_aoissl.data.files import whole_file
from anomalib_aoissl.visualization.overlay import legend, overlay_mask

from .parts import Measured, Part

_FIELDS = ("area", "length", "width", "x", "y")
_OUTLINE, _TEXT = (255, 255, 255), (255, 255, 255)


def fields(scale: float | None) -> list[str]:
    """Return the names of the columns; those in um stand last, where a scale is known."""
    pixels = [f"{name}_px" for name in _FIELDS]
    microns = [f"{name}_um2" if name == "area" else f"{name}_um" for name in _FIELDS] if scale else []
    return [
        "image",
        "class",
        "part",
        "connected",
        *pixels,
        "angle_deg",
        "touching",
        "cut",
        "centre_line",
        "fault",
        *microns,
    ]


def entry(image: str, part: Part, class_names: Sequence[str], scale: float | None, fault: str = "") -> list[Any]:
    """Return the cells of one part.

    Args:
        image: Name of the picture.
        part: The part.
        class_names: Background first.
        scale: Size of a pixel, um; None where it is not known.
        fault: In what the picture is unlike the labelled ones; "" for nothing, or where it is not known.
    """
    values = [float(getattr(part, name)) for name in _FIELDS]
    microns = (
        [value * (scale**2 if name == "area" else scale) for name, value in zip(_FIELDS, values, strict=True)]
        if scale
        else []
    )
    touching = ";".join(class_names[index] for index in part.touching)
    return [
        image,
        class_names[part.class_index],
        part.number,
        part.connected,
        part.area,
        *(f"{value:.2f}" for value in values[1:]),
        f"{part.angle:.1f}",
        touching,
        int(part.cut),
        int(part.line is not None),
        fault,
        *(f"{value:.3f}" for value in microns),
    ]


def entry_without_parts(image: str, scale: float | None, fault: str = "") -> list[Any]:
    """Return the cells of a picture without a part, which would look like one that was not read without them."""
    known = {"image": image, "fault": fault}
    return [known.get(name, "") for name in fields(scale)]


def write_csv(path: Path, entries: Iterable[Sequence[Any]], scale: float | None) -> None:
    """Write the parts of all pictures, whole or not at all."""
    with whole_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(fields(scale))
        writer.writerows(entries)


def draw_parts(picture: np.ndarray, mask: np.ndarray, measured: Measured, class_names: Sequence[str]) -> Image.Image:
    """Return the picture with its classes, the edges between parts, the centre lines and the parts' numbers.

    Args:
        picture: ``[H, W, 3]`` uint8.
        mask: ``[H, W]`` uint8 class indices.
        measured: Its parts.
        class_names: Background first.
    """
    factor = max(1, round(1200 / picture.shape[1]))
    shown = np.kron(overlay_mask(picture, mask, len(class_names)), np.ones((factor, factor, 1), np.uint8))
    labels = np.kron(measured.labels, np.ones((factor, factor), np.int32))
    between = np.zeros(labels.shape, dtype=bool)
    for here, there in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        between[here] |= (labels[here] != labels[there]) & (labels[here] > 0) & (labels[there] > 0)
    shown[between] = (0, 0, 0)
    canvas = Image.fromarray(shown)
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=max(11, 5 * factor))
    for part in measured.parts:
        if part.line is not None:
            draw.line([tuple(point) for point in factor * part.line], fill=_OUTLINE, width=max(1, factor // 2))
        x, y = part.line[len(part.line) // 2] if part.line is not None else (part.x, part.y)
        draw.text((factor * x, factor * y), str(part.number), fill=_TEXT, font=font, anchor="mm", stroke_width=2,
                  stroke_fill=(0, 0, 0))  # fmt: skip
    strip = legend(class_names, canvas.width)
    return Image.fromarray(np.vstack([np.asarray(canvas), np.asarray(strip)]))
