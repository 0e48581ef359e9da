# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0
"""Rasterise wires, balls and wedges at pixel or sample centres, and paint the label mask."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from .layouts.geometry import BALL, EPOXY, WEDGE, WIRE, Balls, Map, Unit, Wedges, Wires
from .layouts.layout import Points

Index = NDArray[np.int64]


@dataclass(frozen=True)
class WireSamples:
    """Samples that lie on a wire, one entry each.

    Attributes:
        index: Flat index of the sample in the image.
        across: Signed distance from the centre line as a share of the radius, -1 to 1.
        tangent: Unit vector [M, 2] along the wire.
        height: Height of the wire's axis in px.
        climb: Slope of the wire along its way.
        from_start: Distance from the start of the wire in px.
        wire: Number of the wire.
    """

    index: Index
    across: Points
    tangent: Points
    height: Points
    climb: Points
    from_start: Points
    wire: Index


@dataclass(frozen=True)
class SpotSamples:
    """Samples that lie on a ball or wedge: flat index, number of the spot, and the two local coordinates."""

    index: Index
    spot: Index
    u: Points
    v: Points


def label_mask(unit: Unit, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the class index of each pixel [H, W], decided at the centre of the pixel.

    Epoxy lies lowest, then wedges and balls, then wires; a wire does not cover the ball it starts from. What is seen
    through a glob keeps its class.
    """
    height, width = size
    epoxy = ((unit.fillet > 0) & (unit.ground > 0) | (unit.glob > 0)).astype(np.float32)
    share = cv2.resize(epoxy, (width, height), interpolation=cv2.INTER_AREA)
    mask = np.asarray(np.where(share >= 0.5, EPOXY, 0), np.uint8)  # the majority of the samples of a pixel
    flat = mask.reshape(-1)
    flat[wedge_samples(unit.wedges, size, 1).index] = WEDGE
    flat[ball_samples(unit.balls, size, 1).index] = BALL
    for layer in wire_samples(unit.wires, size, 1):
        own = (layer.from_start < 1.3 * unit.wires.ball_radius) & (flat[layer.index] == BALL)
        flat[layer.index[~own]] = WIRE
    return mask


def ball_samples(balls: Balls, size: tuple[int, int], samples: int) -> SpotSamples:
    """Return the samples on balls; u, v are the place within the ball as a share of its half axes."""
    if not len(balls.center):
        return _no_spots()
    reach = float(balls.axes.max()) + 1
    rows, columns, x, y = _patches(balls.center, reach, samples)
    cos, sin = np.cos(balls.angle)[:, None, None], np.sin(balls.angle)[:, None, None]
    u = (x * cos + y * sin) / balls.axes[:, 0, None, None]
    v = (y * cos - x * sin) / balls.axes[:, 1, None, None]
    return _collect(u * u + v * v <= 1, rows, columns, u, v, size, samples)


def wedge_samples(wedges: Wedges, size: tuple[int, int], samples: int) -> SpotSamples:
    """Return the samples on wedges; u runs from 0 to 1 along the wedge, v from -1 to 1 across it."""
    if not len(wedges.start):
        return _no_spots()
    reach = float(wedges.length.max()) / 2 + float(wedges.half_end.max()) + 1
    middle = wedges.start + wedges.direction * (wedges.length / 2)[:, None]
    rows, columns, x, y = _patches(middle, reach, samples)
    way = wedges.direction[:, :, None, None]
    length = wedges.length[:, None, None]
    along = (x * way[:, 0] + y * way[:, 1]) / length + 0.5
    across = y * way[:, 0] - x * way[:, 1]
    ramp = np.clip(along / 0.55, 0, 1)
    ramp = ramp * ramp * (3 - 2 * ramp)
    half_end = wedges.half_end[:, None, None]
    half = wedges.half_start[:, None, None] + (half_end - wedges.half_start[:, None, None]) * ramp
    v = across / half
    # The tip of the capillary leaves a round end: a crescent that is longest in the middle.
    end = 1 - 0.38 * np.minimum(half_end / length * v * v, 0.9)
    return _collect((along >= 0) & (along <= end) & (np.abs(v) <= 1), rows, columns, along, v, size, samples)


def _no_spots() -> SpotSamples:
    none = np.zeros(0)
    return SpotSamples(none.astype(np.int64), none.astype(np.int64), none, none)


def _patches(center: Points, reach: float, samples: int) -> tuple[Index, Index, Points, Points]:
    """Return rows, columns and offsets x, y in px of square patches [N, K, K] of samples around the centres."""
    extent = int(np.ceil(reach * samples)) + 1
    steps = np.arange(-extent, extent + 1)
    base = np.floor(center * samples).astype(np.int64)
    columns = base[:, 0, None, None] + steps[None, None, :]
    rows = base[:, 1, None, None] + steps[None, :, None]
    x = (columns + 0.5) / samples - center[:, 0, None, None]
    y = (rows + 0.5) / samples - center[:, 1, None, None]
    columns, rows = np.broadcast_arrays(columns, rows)
    return rows, columns, x, y


def _collect(
    inside: NDArray[np.bool_], rows: Index, columns: Index, u: Points, v: Points, size: tuple[int, int], samples: int
) -> SpotSamples:
    """Return the samples of the patches that are inside both the shape and the image."""
    height, width = size[0] * samples, size[1] * samples
    chosen = inside & (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    spot = np.nonzero(chosen)[0]
    return SpotSamples(rows[chosen] * width + columns[chosen], spot, u[chosen], v[chosen])


def wire_samples(wires: Wires, size: tuple[int, int], samples: int) -> list[WireSamples]:
    """Return the samples on wires, in layers of wires that do not overlap; compare heights between layers."""
    layers = _layers(wires)
    groups = [np.flatnonzero(layers == layer) for layer in range(int(layers.max(initial=-1)) + 1)]
    return [_one_layer(wires, members, size, samples) for members in groups]


def _layers(wires: Wires) -> Index:
    """Return a layer number [N] for each wire, such that wires of one layer keep clear of each other."""
    low, high = wires.points.min(axis=1), wires.points.max(axis=1)
    step = float(np.linalg.norm(np.diff(wires.points, axis=1), axis=2).max(initial=0))
    margin = 2 * wires.radius + 3 + 0.75 * step
    layers = np.full(len(low), -1, np.int64)
    for number in range(len(low)):
        near = np.flatnonzero(
            (low[:number] < high[number] + margin).all(axis=1) & (high[:number] > low[number] - margin).all(axis=1)
        )
        if len(near):
            gap = wires.points[near][:, :, None] - wires.points[number][None, None]
            near = near[np.square(gap).sum(axis=3).min(axis=(1, 2)) < margin**2]
        taken = set(layers[near].tolist())
        layers[number] = next(layer for layer in range(len(taken) + 1) if layer not in taken)
    return layers


def _one_layer(wires: Wires, members: Index, size: tuple[int, int], samples: int) -> WireSamples:
    """Return the samples on some wires that do not overlap each other."""
    shape = (size[0] * samples, size[1] * samples)
    points = wires.points[members]
    count = points.shape[1] - 1
    segments = np.zeros(shape, np.float32)
    thickness = int(np.ceil(2 * wires.radius * samples)) + 3
    fixed = np.round((points * samples - 0.5) * 16).astype(np.int32)
    for number, line in enumerate(fixed):
        for step in range(count):
            label = float(number * count + step + 1)
            cv2.line(segments, line[step].tolist(), line[step + 1].tolist(), label, thickness, cv2.LINE_8, 4)
    index = np.flatnonzero(segments)
    segment = segments.reshape(-1)[index].astype(np.int64) - 1
    place = np.stack([index % shape[1] + 0.5, index // shape[1] + 0.5], axis=1) / samples
    return _nearest(wires, members, index, segment, place)


def _nearest(wires: Wires, members: Index, index: Index, segment: Index, place: Points) -> WireSamples:
    """Return those samples that lie within the radius of their wire, each with its nearest segment.

    A thick line of one segment may have painted over its neighbours, so each sample walks from its segment along the
    wire, both ways, as long as that brings it nearer.
    """
    count = wires.points.shape[1] - 1
    wire, chosen = segment // count, segment % count
    line = wires.points[members]
    best, part = _distance(line, wire, chosen, place)
    for way in (-1, 1):
        active = np.arange(len(index))
        while len(active):
            other = chosen[active] + way
            active, other = active[(other >= 0) & (other < count)], other[(other >= 0) & (other < count)]
            distance, share = _distance(line, wire[active], other, place[active])
            better = distance < best[active]
            active = active[better]
            best[active], chosen[active], part[active] = distance[better], other[better], share[better]
    keep = (best <= wires.radius**2) & ~_beyond(line, wire, place, wires.radius)
    return _describe(wires, members, index[keep], wire[keep], chosen[keep], part[keep], place[keep])


def _distance(line: Points, wire: Index, step: Index, place: Points) -> tuple[Points, Points]:
    """Return the squared distance of places from segments, and where on the segment (0 to 1) they are nearest."""
    start = line[wire, step]
    way = line[wire, step + 1] - start
    share = np.clip(((place - start) * way).sum(axis=1) / (way * way).sum(axis=1), 0, 1)
    return np.square(place - start - share[:, None] * way).sum(axis=1), share


def _beyond(line: Points, wire: Index, place: Points, radius: float) -> NDArray[np.bool_]:
    """Return which places lie past an end of their wire: a wire ends flat, at its bond."""
    past = np.zeros(len(wire), bool)
    for end, inner in ((0, 1), (-1, -2)):
        offset = place - line[wire, end]
        inward = line[wire, inner] - line[wire, end]
        past |= ((offset * inward).sum(axis=1) < 0) & (np.square(offset).sum(axis=1) < 4 * radius**2)
    return past


def _describe(
    wires: Wires, members: Index, index: Index, wire: Index, step: Index, part: Points, place: Points
) -> WireSamples:
    """Return what the shading needs to know about each sample on a wire."""
    line, height = wires.points[members], wires.height[members]
    way = line[wire, step + 1] - line[wire, step]
    length = np.linalg.norm(way, axis=1)
    tangent = way / length[:, None]
    # Tangents are interpolated between the points, so that the glint does not jump from segment to segment.
    nodes = np.gradient(line, axis=1)
    nodes /= np.linalg.norm(nodes, axis=2, keepdims=True)
    smooth = nodes[wire, step] * (1 - part)[:, None] + nodes[wire, step + 1] * part[:, None]
    offset = place - line[wire, step] - part[:, None] * way
    across = (offset[:, 1] * tangent[:, 0] - offset[:, 0] * tangent[:, 1]) / wires.radius
    slope = np.gradient(height, axis=1) / np.maximum(np.linalg.norm(np.gradient(line, axis=1), axis=2), 1e-6)
    climb = slope[wire, step] * (1 - part) + slope[wire, step + 1] * part
    level = height[wire, step] * (1 - part) + height[wire, step + 1] * part
    travelled = np.concatenate(
        [np.zeros((len(members), 1)), np.cumsum(np.linalg.norm(np.diff(line, axis=1), axis=2), axis=1)], axis=1
    )
    from_start = travelled[wire, step] + part * length
    return WireSamples(index, across, smooth, level, climb, from_start, members[wire])


def shifted_wires(unit: Unit, shape: tuple[int, int], samples: int, light: Points) -> Map:
    """Return the shadow [H, W] of the wires, 0 to 1, each point cast aside by its height along ``light``."""
    shadow = np.zeros(shape, np.uint8)
    cast = (unit.wires.points + unit.wires.height[..., None] * light) * samples - 0.5
    thickness = max(1, round(2 * unit.wires.radius * samples))
    lines = list(np.round(cast * 16).astype(np.int32))
    cv2.polylines(shadow, lines, isClosed=False, color=255, thickness=thickness, lineType=cv2.LINE_8, shift=4)
    return np.asarray(shadow.astype(np.float32) / 255)
