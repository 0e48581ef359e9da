# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0
"""The geometry of one unit in image pixels: wires as polylines, balls, wedges, epoxy, and the label mask from them.

Continuous image coordinates: the centre of the pixel in row i, column j lies at x = j + 0.5, y = i + 0.5. The picture
is drawn on a finer grid (``samples`` per pixel and direction) from the very same shapes as the mask.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ..devices import DeviceType
from .layout import Connection, Die, Layout, Points

WIRE_POINTS = 25
BACKGROUND, WIRE, BALL, WEDGE, EPOXY = range(5)
Map = NDArray[np.float32]


@dataclass(frozen=True)
class Wires:
    """Wires: centre lines [N, P, 2] and heights [N, P] in px, radius in px, radius of the own ball in px (0: none)."""

    points: Points
    height: Points
    radius: float
    ball_radius: float


@dataclass(frozen=True)
class Balls:
    """Balls: centres [N, 2], half axes [N, 2] in px, angles [N] of the first axis."""

    center: Points
    axes: Points
    angle: Points


@dataclass(frozen=True)
class Wedges:
    """Wedges: where the wire ends [N, 2], direction [N, 2], length [N], half widths at start and end [N] in px."""

    start: Points
    direction: Points
    length: Points
    half_start: Points
    half_end: Points


@dataclass(frozen=True)
class Unit:
    """One unit: the transform [2, 3] from device to image coordinates, and everything that is bonded or dispensed.

    ``fillet``, ``ground`` and ``glob`` tell for each sample how far inside the die attach epoxy, outside the dies and
    inside the glob it lies, in px (negative: on the other side).
    """

    affine: Points
    scale: float
    wires: Wires
    balls: Balls
    wedges: Wedges
    fillet: Map
    ground: Map
    glob: Map


def place_unit(
    layout: Layout,
    device: DeviceType,
    rng: np.random.Generator,
    size: tuple[int, int],
    samples: int,
    difficulty: float,
) -> Unit:
    """Return the geometry of one unit: placed a little off, bonds a little off, wires bowed.

    Args:
        layout: The layout of the type.
        device: The type.
        rng: Random numbers of this unit.
        size: Height and width of the image in px.
        samples: Samples per pixel and direction of the fields ``fillet`` and ``glob``.
        difficulty: 0 to 1; more bow and more scatter of the bonds.
    """
    affine, scale = _placement(rng, size, difficulty)
    starts, lines, heights = _wire_lines(layout.connections, device, rng, difficulty)
    width = max(device.wire_width * scale, 1.0)
    ball_diameter = _ball_diameter(starts, device)
    wires = Wires(transform(affine, lines), heights * scale, width / 2, ball_diameter * scale / 2)
    balls = _balls(transform(affine, starts), ball_diameter, scale, rng)
    wedges = _wedges(wires, device, scale, rng, both_ends=device.ball_diameter == 0)
    fillet, ground, glob = _epoxy(layout, device, rng, affine, scale, size, samples)
    return Unit(affine, scale, wires, balls, wedges, fillet, ground, glob)


def transform(affine: Points, points: Points) -> Points:
    """Return points [..., 2] after an affine transform [2, 3]."""
    return np.asarray(points @ affine[:, :2].T + affine[:, 2], np.float64)


def _placement(rng: np.random.Generator, size: tuple[int, int], difficulty: float) -> tuple[Points, float]:
    """Return the transform from reference px to image px with a small rotation and shift, and its scale."""
    height, width = size
    scale = min(height, width) / 512
    angle = np.deg2rad(float(rng.normal(0, 0.5 + 0.7 * difficulty)))
    angle = float(np.clip(angle, -0.045, 0.045))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * scale
    shift = np.clip(rng.normal(0, 2 + 3 * difficulty, 2), -10, 10) * scale
    return np.concatenate([turn, (np.array([width, height]) / 2 + shift)[:, None]], axis=1), scale


def _wire_lines(
    connections: list[Connection], device: DeviceType, rng: np.random.Generator, difficulty: float
) -> tuple[Points, Points, Points]:
    """Return bond places [N, 2], centre lines [N, P, 2] and heights [N, P] in reference px."""
    count = len(connections)
    starts = np.array([c.start for c in connections]) + rng.normal(0, 0.6 + 0.5 * difficulty, (count, 2))
    ends = np.array([c.end for c in connections]) + rng.normal(0, 0.8 + 0.8 * difficulty, (count, 2))
    span = ends - starts
    length = np.linalg.norm(span, axis=1, keepdims=True)
    loops = np.minimum(device.loop_height, (0.10 + 0.002 * device.loop_height) * length[:, 0] + 2)
    loops = loops * np.array([c.loop for c in connections]) * rng.uniform(0.9, 1.1, count)
    normal = np.stack([-span[:, 1], span[:, 0]], axis=1) / length
    place = np.linspace(0, 1, WIRE_POINTS)
    bow = rng.normal(0, device.bow * (0.35 + 0.9 * difficulty), (count, 1)) * length
    bow += rng.normal(0, 0.4) * device.bow * length  # all wires of a unit are swept the same way a little
    sway = rng.normal(0, device.bow * 0.25, (count, 1)) * length
    limit = 0.14 * length
    aside = np.clip(bow, -limit, limit) * np.sin(np.pi * place) + np.clip(sway, -limit / 3, limit / 3) * np.sin(
        2 * np.pi * place
    )
    lines = starts[:, None] + place[None, :, None] * span[:, None] + aside[..., None] * normal[:, None]
    # A ball bond's loop rises steeply, runs flat and comes down to the lead; a wedge bond's loop is a flat arch.
    rise = 0.15 if device.ball_diameter else 0.36
    fall = np.clip((place - rise) / (1 - rise), 0, 1)
    shape = np.where(place < rise, np.sin(np.pi / 2 * place / rise), 0.5 + 0.5 * np.cos(np.pi * fall**1.6))
    return starts, lines, loops[:, None] * shape


def _ball_diameter(starts: Points, device: DeviceType) -> float:
    """Return the diameter of the balls, made to fit between the neighbours at the finest pitch."""
    if not device.ball_diameter or len(starts) < 2:
        return device.ball_diameter
    distance = np.linalg.norm(starts[:, None] - starts[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    finest = float(np.quantile(distance.min(axis=1), 0.1))
    return float(np.clip(0.92 * finest, 1.7 * device.wire_width, device.ball_diameter))


def _balls(starts: Points, ball_diameter: float, scale: float, rng: np.random.Generator) -> Balls:
    """Return one slightly oval ball at the start of each wire, or none for wedge-wedge bonding."""
    count = len(starts) if ball_diameter else 0
    radius = max(ball_diameter * scale / 2, 1.0)
    axes = radius * (1 + rng.normal(0, 0.03, (count, 1)) + rng.normal(0, 0.03, (count, 1)) * np.array([[1, -1]]))
    return Balls(starts[:count], axes, rng.uniform(0, np.pi, count))


def _wedges(wires: Wires, device: DeviceType, scale: float, rng: np.random.Generator, *, both_ends: bool) -> Wedges:
    """Return the wedge at the end of each wire, and at its start too for wedge-wedge bonding."""
    ends = [(wires.points[:, -1], wires.points[:, -1] - wires.points[:, -3])]
    if both_ends:
        ends.append((wires.points[:, 0], wires.points[:, 0] - wires.points[:, 2]))
    start = np.concatenate([place for place, _ in ends])
    direction = np.concatenate([way for _, way in ends])
    direction = direction / np.linalg.norm(direction, axis=1, keepdims=True)
    count = len(start)
    length = np.maximum(device.wedge_length * scale * rng.uniform(0.88, 1.12, count), 1.5)
    spread = rng.uniform(1.3, 1.5, count) if both_ends else rng.uniform(1.9, 2.4, count)
    half = np.full(count, wires.radius)
    return Wedges(start, direction, length, half, half * spread)


def _epoxy(
    layout: Layout,
    device: DeviceType,
    rng: np.random.Generator,
    affine: Points,
    scale: float,
    size: tuple[int, int],
    samples: int,
) -> tuple[Map, ...]:
    """Return how far inside the fillet, outside the dies and inside the glob each sample lies, in px."""
    x, y = device_grid(affine, size, samples)
    wobble = (
        smooth_noise(rng, x.shape, 0.055 * min(x.shape)) * 0.42 + smooth_noise(rng, x.shape, 0.02 * min(x.shape)) * 0.14
    )
    fillet = np.full(x.shape, -1e3, np.float32)
    for die in layout.dies:
        if die.level == 0:
            width = device.epoxy_width * float(rng.uniform(0.85, 1.15))
            lean = rng.normal(0, 0.2 * device.epoxy_width, 2)
            fillet = np.maximum(fillet, -(_box_distance(x, y, die, lean) - width * (1 + wobble)))
    ground = np.full(x.shape, 1e3, np.float32)
    for die in layout.dies:
        ground = np.minimum(ground, _box_distance(x, y, die, np.zeros(2)))
    glob = np.full(x.shape, -1e3, np.float32)
    if device.epoxy == "glob":
        center_x, center_y, radius_x, radius_y = device.glob
        center_x, center_y = center_x + float(rng.normal(0, 6)), center_y + float(rng.normal(0, 6))
        radial = np.sqrt(((x - center_x) / radius_x) ** 2 + ((y - center_y) / radius_y) ** 2)
        glob = np.asarray((1 + 0.13 * wobble - radial) * min(radius_x, radius_y), np.float32)
    return tuple(np.asarray(field * scale, np.float32) for field in (fillet, ground, glob))


def device_grid(affine: Points, size: tuple[int, int], samples: int) -> tuple[Map, Map]:
    """Return device coordinates x, y of all samples of an image, each [H * samples, W * samples]."""
    inverse = np.linalg.inv(affine[:, :2])
    column = ((np.arange(size[1] * samples) + 0.5) / samples - affine[0, 2])[None]
    row = ((np.arange(size[0] * samples) + 0.5) / samples - affine[1, 2])[:, None]
    x = (inverse[0, 0] * column + inverse[0, 1] * row).astype(np.float32)
    y = (inverse[1, 0] * column + inverse[1, 1] * row).astype(np.float32)
    return x, y


def _box_distance(x: Map, y: Map, die: Die, lean: Points) -> Map:
    """Return the distance to the outline of a die (negative inside), the die leaning off by ``lean``."""
    dx = np.abs(x - np.float32(die.center[0] + lean[0])) - np.float32(die.size[0] / 2)
    dy = np.abs(y - np.float32(die.center[1] + lean[1])) - np.float32(die.size[1] / 2)
    outside = cv2.magnitude(np.maximum(dx, 0), np.maximum(dy, 0))
    return np.asarray(outside + np.minimum(np.maximum(dx, dy), 0), np.float32)


def smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], cell: float) -> Map:
    """Return smooth noise of about unit deviation whose bumps are ``cell`` samples wide."""
    rows, columns = (max(4, round(extent / max(cell, 1.0)) + 3) for extent in shape[:2])
    coarse = rng.standard_normal((rows, columns), dtype=np.float32)
    return np.asarray(cv2.resize(coarse, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC), np.float32)
