# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0
"""Paint dies and bond pads onto a canvas: circuit, seal ring, saw street, chipped edge, probe marks."""

from __future__ import annotations

import cv2
import numpy as np

from ..layouts.geometry import smooth_noise
from ..layouts.layout import Die, rectangle
from .canvas import Canvas
from .materials import MATERIALS, generator, lot_tone
from .textures import die_metal


def paint_die(canvas: Canvas, die: Die) -> None:
    """Paint a die: circuit under the passivation, seal ring, saw street and chipped edge."""
    rows, columns = canvas.window(die.center, die.size)
    surface, unit = canvas.surface, canvas.unit
    shape = surface.mirror[rows, columns].shape
    rng = generator(int(canvas.rng.integers(2**31)), die.level)
    metal = die_metal(die.texture, (shape[0], shape[1]), rng, unit)
    street, seal = max(1, round(3.2 * unit)), max(1, round(4.6 * unit))
    inside = np.zeros(shape, np.uint8)
    inside[street:-street, street:-street] = 1
    metal = np.where(inside > 0, metal, np.float32(0.34))
    cv2.rectangle(metal, (seal, seal), (shape[1] - seal - 1, shape[0] - seal - 1), 0.72, max(1, round(unit)))
    film = 1 + 0.05 * smooth_noise(rng, shape, 90 * unit)
    tone = lot_tone("die", canvas.lot, canvas.device) * (1 - 0.05 * die.level)
    surface.mirror[rows, columns] = (0.08 + 0.66 * metal) * film * tone
    surface.diffuse[rows, columns] = 0.014 + 0.03 * metal
    surface.rough[rows, columns] = 0.05 + 0.05 * (1 - metal)
    surface.slope_x[rows, columns] = cv2.Sobel(metal, cv2.CV_32F, 1, 0, ksize=3, scale=0.20)
    surface.slope_y[rows, columns] = cv2.Sobel(metal, cv2.CV_32F, 0, 1, ksize=3, scale=0.20)
    _paint_edge(canvas, die, rng)


def _paint_edge(canvas: Canvas, die: Die, rng: np.random.Generator) -> None:
    """Paint the sawn edge: a thin line of steep, chipped silicon that glints in the dark field."""
    outline = canvas.to_samples(rectangle(die.center, die.size))
    edge = np.zeros(canvas.shape, np.uint8)
    cv2.polylines(edge, [outline], True, 1, max(1, round(1.5 * canvas.unit)), cv2.LINE_8, 4)
    where = np.flatnonzero(edge)
    chips = rng.random(len(where), dtype=np.float32)
    surface = canvas.surface
    surface.mirror.reshape(-1)[where] = 0.25 + 0.3 * chips
    surface.diffuse.reshape(-1)[where] = 0.05 + 0.22 * chips**2
    surface.rough.reshape(-1)[where] = 0.3
    surface.slope_x.reshape(-1)[where] = 0.75
    surface.slope_y.reshape(-1)[where] = 0.5


def paint_pad(canvas: Canvas, pad: tuple[float, float, float, float]) -> None:
    """Paint a bond pad (centre x, y, width, height): aluminium in an opening of the passivation, with a probe mark."""
    x, y, width, height = pad
    surface = canvas.surface
    rows, columns = canvas.window((x, y), (width, height))
    if rows.stop <= rows.start or columns.stop <= columns.start:
        return
    top, left = canvas.window((x, y), (width + 2.2, height + 2.2))
    rim = np.zeros((top.stop - top.start, left.stop - left.start), np.uint8)
    cv2.rectangle(rim, (0, 0), (rim.shape[1] - 1, rim.shape[0] - 1), 1, max(1, round(0.8 * canvas.unit)))
    surface.mirror[top, left][rim > 0] = 0.22
    surface.slope_x[top, left][rim > 0] = 0.3
    grain = canvas.soft[rows, columns]
    surface.mirror[rows, columns] = MATERIALS["aluminium"].mirror * 0.92 * (1 + 0.05 * grain)
    surface.rough[rows, columns] = 0.1
    surface.diffuse[rows, columns] = 0.03
    surface.slope_x[rows, columns] = 0.03 * grain
    surface.slope_y[rows, columns] = 0.0
    _paint_probe_mark(canvas, rows, columns)


def _paint_probe_mark(canvas: Canvas, rows: slice, columns: slice) -> None:
    """Scratch a short probe mark into a pad."""
    view = canvas.surface.mirror[rows, columns]
    height, width = view.shape
    mark = np.zeros((height, width), np.uint8)
    center = (np.array([width, height]) * (0.5 + canvas.rng.uniform(-0.15, 0.15, 2))).astype(int)
    axes = (max(1, int(width * 0.2)), max(1, int(height * 0.08)))
    cv2.ellipse(mark, center.tolist(), axes, float(canvas.rng.uniform(60, 120)), 0, 360, 1, -1)
    view[mark > 0] *= 0.55
    canvas.surface.rough[rows, columns][mark > 0] = 0.35
