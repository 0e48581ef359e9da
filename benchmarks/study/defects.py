# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Defects drawn into units of WireBond, with a mask of each: missing wire, lifted ball, crossed wires, particle, crack.

The first three change the geometry that the unit is drawn from, so light and shadow are right; the others lie on the
picture. All else, noise and dust too, stays as it is without the defect.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from anomalib_aoissl.wirebond.drawing.devices import DEVICES, DeviceType
from anomalib_aoissl.wirebond.drawing.layouts.geometry import Unit, transform
from anomalib_aoissl.wirebond.drawing.painting.materials import generator, name_key
from anomalib_aoissl.wirebond.drawing.painting.surfaces import device_layout
from anomalib_aoissl.wirebond.drawing.raster import ball_samples, wedge_samples, wire_samples
from anomalib_aoissl.wirebond.drawing.rendering import Drawing, draw

__all__ = ["DEFECTS", "Defective", "draw_defect"]

_FAR = -4000.0  # px: where what is missing lies
_LIFT = 1.3  # diameters that a lifted ball lies off its pad
_PARTICLE_RADIUS, _CRACK_WIDTH = (6.0, 12.0), (1.8, 2.8)  # px where the shorter side has 512

Region = NDArray[np.bool_]
Change = tuple[Unit, Region]


@dataclass(frozen=True)
class Defective:
    """A unit with a defect.

    Attributes:
        drawing: The unit under two lights.
        defect: Where the defect is, or where something should be, ``[H, W]``.
        before: Geometry without the defect.
        after: Geometry that was drawn.
        outline: Outline ``[P, 2]`` of a particle or middle line of a crack in px; empty for others.
    """

    drawing: Drawing
    defect: Region
    before: Unit
    after: Unit
    outline: NDArray[np.float64]


def draw_defect(
    kind: str, device: str, *, seed: int, unit: int, size: tuple[int, int] = (512, 512), difficulty: float = 0.5
) -> Defective:
    """Return a unit of a device type with one defect, the same for the same arguments.

    Raises:
        ValueError: If there is no such defect, or the device has no balls and a ball is to be lifted.
    """
    if kind not in DEFECTS:
        msg = f"There is no defect {kind!r}; choose one of {list(DEFECTS)}."
        raise ValueError(msg)
    if kind == "lifted ball" and not DEVICES[device].ball_diameter:
        msg = f"{device} has no ball bonds, so none can be lifted. Choose a device with balls."
        raise ValueError(msg)
    rng = generator(seed, name_key(kind), unit)
    seen: list[Change] = []

    def change(before: Unit) -> Unit:
        after, region = _GEOMETRY[kind](before, size, rng) if kind in _GEOMETRY else (before, np.zeros(size, bool))
        seen[:] = [(before, region)]
        return after

    changed: list[Unit] = []
    drawing = draw(
        device,
        seed=seed,
        unit=unit,
        size=size,
        difficulty=difficulty,
        change=lambda scene: changed.append(change(scene)) or changed[-1],  # type: ignore[func-returns-value]
    )
    (before, region), after = seen[0], changed[0]
    outline = np.zeros((0, 2))
    if kind in _ON_TOP:
        drawing, region, outline = _ON_TOP[kind](drawing, before, DEVICES[device], seed, rng)
    return Defective(drawing, region, before, after, outline)


# --- defects of the geometry -----------------------------------------------------------------------------------------


def _missing_wire(unit: Unit, size: tuple[int, int], rng: np.random.Generator) -> Change:
    """Take a wire with its bonds away."""
    index = int(rng.choice(_wires_inside(unit, size)))
    every = len(unit.wires.points)
    bonds = np.arange(len(unit.wedges.start)) % every == index
    region = np.zeros(size, bool)
    flat = region.reshape(-1)
    flat[_wire_pixels(unit, [index], size)] = True
    flat[_pixels_of(wedge_samples(unit.wedges, size, 1), np.flatnonzero(bonds))] = True
    flat[_pixels_of(ball_samples(unit.balls, size, 1), np.array([index]))] = True
    points, start = unit.wires.points.copy(), unit.wedges.start.copy()
    points[index] += _FAR
    start[bonds] += _FAR
    center = unit.balls.center.copy()
    if len(center):
        center[index] += _FAR
    after = replace(
        unit,
        wires=replace(unit.wires, points=points),
        wedges=replace(unit.wedges, start=start),
        balls=replace(unit.balls, center=center),
    )
    return after, region


def _lifted_ball(unit: Unit, size: tuple[int, int], rng: np.random.Generator) -> Change:
    """Move a ball off its pad, the near part of its wire with it."""
    index = int(rng.choice(_wires_inside(unit, size)))
    line = unit.wires.points[index]
    along = (line[3] - line[0]) / np.linalg.norm(line[3] - line[0])
    aside = float(rng.choice([-1.0, 1.0])) * np.array([-along[1], along[0]])
    move = 2 * _LIFT * unit.wires.ball_radius * aside
    points, center = unit.wires.points.copy(), unit.balls.center.copy()
    fade = np.clip(1 - np.linspace(0, 2, len(line)), 0, 1) ** 2
    points[index] = line + fade[:, None] * move
    center[index] = center[index] + move
    after = replace(unit, wires=replace(unit.wires, points=points), balls=replace(unit.balls, center=center))
    region = np.zeros(size, bool)
    for scene in (unit, after):
        region.reshape(-1)[_pixels_of(ball_samples(scene.balls, size, 1), np.array([index]))] = True
    return after, region


def _crossed_wires(unit: Unit, size: tuple[int, int], rng: np.random.Generator) -> Change:
    """Have two neighbouring wires swap where they end; the defect is what they cover and no wire did."""
    first, second = _uncrossed_neighbours(unit, size, rng)
    ends = unit.wires.points[:, -1]
    place = np.linspace(0, 1, unit.wires.points.shape[1])[:, None]
    points, height = unit.wires.points.copy(), unit.wires.height.copy()
    for index, other in ((first, second), (second, first)):
        points[index] = points[index] + place * (ends[other] - ends[index])
    height[first] *= 1.3  # one of them lies on top
    after = replace(unit, wires=replace(unit.wires, points=points, height=height))
    region = np.zeros(size, bool)
    region.reshape(-1)[_wire_pixels(after, [first, second], size)] = True
    region.reshape(-1)[_wire_pixels(unit, list(range(len(points))), size)] = False
    return after, region


def _uncrossed_neighbours(unit: Unit, size: tuple[int, int], rng: np.random.Generator) -> tuple[int, int]:
    """Return two wires that end side by side, do not cross, and would if they swapped where they end.

    Raises:
        ValueError: If there are none.
    """
    starts, ends = unit.wires.points[:, 0], unit.wires.points[:, -1]
    inside = _wires_inside(unit, size)
    for first in rng.permutation(inside).tolist():
        others = inside[inside != first]
        for second in others[np.linalg.norm(ends[others] - ends[first], axis=1).argsort()][:2].tolist():
            pair = starts[first], ends[first], starts[second], ends[second]
            if not _cross(*pair) and _cross(pair[0], pair[3], pair[2], pair[1]):
                return first, second
    msg = "No two neighbouring wires of this unit can be crossed. Choose another unit or device."
    raise ValueError(msg)


def _cross(a: NDArray[np.float64], b: NDArray[np.float64], c: NDArray[np.float64], d: NDArray[np.float64]) -> bool:
    """Return whether the segments from a to b and from c to d cross."""

    def side(p: NDArray[np.float64], q: NDArray[np.float64], r: NDArray[np.float64]) -> float:
        return float((q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0]))

    return side(a, b, c) * side(a, b, d) < 0 and side(c, d, a) * side(c, d, b) < 0


def _wires_inside(unit: Unit, size: tuple[int, int]) -> NDArray[np.int64]:
    """Return the wires that lie in the image with a margin."""
    margin = 0.04 * min(size)
    limit = np.array([size[1], size[0]]) - margin
    found = ((unit.wires.points > margin) & (unit.wires.points < limit)).all(axis=(1, 2))
    return np.flatnonzero(found)


def _wire_pixels(unit: Unit, chosen: list[int], size: tuple[int, int]) -> NDArray[np.int64]:
    """Return the flat pixels of some wires."""
    part = replace(unit.wires, points=unit.wires.points[chosen], height=unit.wires.height[chosen])
    return np.concatenate([layer.index for layer in wire_samples(part, size, 1)])


def _pixels_of(samples: object, spots: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the flat pixels of some of the spots."""
    index: NDArray[np.int64] = samples.index[np.isin(samples.spot, spots)]  # type: ignore[attr-defined]
    return index


# --- defects on the picture ------------------------------------------------------------------------------------------


def _particle(
    drawing: Drawing, unit: Unit, device: DeviceType, seed: int, rng: np.random.Generator
) -> tuple[Drawing, Region, NDArray[np.float64]]:
    """Lay an irregular grain somewhere on the picture: dark under coaxial light, bright at its rim under the ring."""
    del device, seed
    height, width = drawing.mask.shape
    radius = float(rng.uniform(*_PARTICLE_RADIUS)) * unit.scale
    center = rng.uniform(0.15, 0.85, 2) * np.array([width, height])
    waves = rng.uniform(0, 0.16, 3), rng.uniform(0, 2 * np.pi, 3)
    x, y = _pixel_grid(drawing.mask.shape)
    share = np.hypot(x - center[0], y - center[1]) / _outline(np.arctan2(y - center[1], x - center[0]), radius, *waves)
    cover = np.clip((1 - share) * radius + 0.5, 0, 1)
    dome = np.sqrt(np.clip(1 - share**2, 0, 1))
    grain = cv2.GaussianBlur(rng.standard_normal(drawing.mask.shape), (0, 0), 1.2) * 18
    tones = 40 + 60 * dome**6 + grain, 60 + 150 * (1 - dome) + grain
    angles = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    reach = _outline(angles, radius, *waves)
    outline = center + np.stack([np.cos(angles) * reach, np.sin(angles) * reach], axis=1)
    return _laid(drawing, cover, tones), share <= 1, outline


def _outline(
    angle: NDArray[np.float64], radius: float, strengths: NDArray[np.float64], phases: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the distance of a grain's outline from its middle in each direction."""
    waves = [s * np.sin((k + 2) * angle + p) for k, (s, p) in enumerate(zip(strengths, phases, strict=True))]
    return radius * (1 + np.sum(waves, axis=0))


def _crack(
    drawing: Drawing, unit: Unit, device: DeviceType, seed: int, rng: np.random.Generator
) -> tuple[Drawing, Region, NDArray[np.float64]]:
    """Run a jagged crack from an edge of a die inwards: dark under coaxial light, bright under the ring."""
    die = device_layout(device, seed).dies[0]
    side = np.array([[0, -1], [1, 0], [0, 1], [-1, 0]])[int(rng.integers(4))]
    extent = np.array(die.size)
    start = np.array(die.center) + side * extent / 2 + np.array([-side[1], side[0]]) * extent * rng.uniform(-0.3, 0.3)
    steps = 12
    turns = np.cumsum(rng.normal(0, 0.35, steps)) * 0.5 + rng.normal(0, 0.3, steps)
    heading = np.arctan2(-side[1], -side[0]) + turns
    length = float(rng.uniform(0.4, 0.75)) * min(die.size) / steps
    path = start + np.cumsum(np.stack([np.cos(heading), np.sin(heading)], axis=1) * length, axis=0)
    line = transform(unit.affine, np.concatenate([start[None], path]))
    half = max(float(rng.uniform(*_CRACK_WIDTH)) * unit.scale, 1.2) / 2
    distance = _distance_to(line, drawing.mask.shape)
    cover = np.clip(half - distance + 0.5, 0, 1)
    tones = np.full(drawing.mask.shape, 12.0), np.full(drawing.mask.shape, 190.0)
    return _laid(drawing, 0.9 * cover, tones), distance <= half, line


def _distance_to(line: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return the distance of each pixel's centre from a polyline, px."""
    x, y = _pixel_grid(shape)
    best = np.full(shape, np.inf)
    for start, end in pairwise(line):
        way = end - start
        share = np.clip(((x - start[0]) * way[0] + (y - start[1]) * way[1]) / (way @ way), 0, 1)
        best = np.minimum(best, np.hypot(x - start[0] - share * way[0], y - start[1] - share * way[1]))
    return best


def _pixel_grid(shape: tuple[int, ...]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return x and y of the pixels' centres."""
    rows, columns = np.indices(shape[:2])
    return columns + 0.5, rows + 0.5


def _laid(drawing: Drawing, cover: NDArray[np.float64], tones: tuple[NDArray[np.float64], ...]) -> Drawing:
    """Return the drawing with a tone laid over each of its lights."""
    fields = (drawing.bright_field, drawing.dark_field)
    mixed = [(1 - cover) * field + cover * tone for field, tone in zip(fields, tones, strict=True)]
    bright, dark = (np.clip(field, 0, 255).round().astype(np.uint8) for field in mixed)
    return Drawing(bright, dark, drawing.mask)


_GEOMETRY: dict[str, Callable[[Unit, tuple[int, int], np.random.Generator], Change]] = {
    "missing wire": _missing_wire,
    "lifted ball": _lifted_ball,
    "crossed wires": _crossed_wires,
}
_ON_TOP = {"particle": _particle, "crack": _crack}

DEFECTS = (*_GEOMETRY, *_ON_TOP)
"""The defects by name."""
