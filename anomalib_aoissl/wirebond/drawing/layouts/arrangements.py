# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0
"""Arrangements of a layout: single, stacked and paired dies, arrays, power devices, modules and chip cards."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from ..devices import DeviceType
from .layout import REACH, Connection, Die, Layout, Points, band, ellipse, rectangle, side_axes
from .rows import add_pads, add_wires, bond_finger, connect_row, fewer, pad_row, pad_size, pair


def make_layout(device: DeviceType, rng: np.random.Generator) -> Layout:
    """Return the layout of a device type; the same for every unit that is drawn with it."""
    layout = Layout()
    _BUILDERS[device.arrangement](layout, device, rng)
    if device.package == "laminate" and device.arrangement != "card":
        _laminate_clutter(layout, rng)
    if device.package == "ceramic":
        _ceramic_clutter(layout, device, rng)
    return layout


def _paddle(layout: Layout, center: tuple[float, float], size: tuple[float, float], ties: str) -> None:
    """Add a die paddle with its tie bars: to the corners (X) or to two sides (any of N, E, S, W)."""
    layout.paddles.append(rectangle(center, size))
    half = np.array(size) / 2
    if "X" in ties:
        for sx, sy in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
            corner = np.array(center) + half * (sx, sy) * 0.96
            line = np.array([corner, corner + np.array([sx, sy]) * REACH])
            layout.paddles.append(band(line, np.array([15.0, 15.0])))
    for side in ties.replace("X", ""):
        out, _ = side_axes(side)
        line = np.array([np.array(center), np.array(center) + out * REACH])
        layout.paddles.append(band(line, np.array([46.0, 46.0])))


def _single(layout: Layout, device: DeviceType, rng: np.random.Generator) -> None:
    """One die in the middle, leads on its sides; on a laminate with a ground ring around the die."""
    die = Die((0.0, 0.0), device.die_size, device.die_texture)
    layout.dies.append(die)
    margin = min(device.lead_gap * 0.62, 44.0)
    ground = (die.size[0] + 2 * margin, die.size[1] + 2 * margin)
    if device.package == "lead_frame":
        _paddle(layout, die.center, ground, "X" if len(device.sides) == 4 else "EW")
    elif device.package == "laminate":
        _ground_ring(layout, device, die, rng)
    else:
        layout.paddles.append(rectangle(die.center, (die.size[0] + 40, die.size[1] + 40)))
    for side in device.sides:
        connect_row(layout, device, die, side, rng, fan=1.16 if len(device.sides) == 4 else 1.0)


def _ground_ring(layout: Layout, device: DeviceType, die: Die, rng: np.random.Generator) -> None:
    """Add the die attach land, the ring around it, and a few short wires down to the ring (low loops)."""
    layout.paddles.append(rectangle(die.center, (die.size[0] + 26, die.size[1] + 26)))
    distance, width = 24.0, 8.0
    for side in "NESW":
        out, along = side_axes(side)
        half = np.array(die.size) / 2
        center = out * (float(abs(out) @ half) + distance)
        length = 2 * (float(abs(along) @ half) + distance) + width
        layout.leads.append(rectangle(center, tuple(abs(along) * length + abs(out) * width)))
    if device.lead_tiers < 2:
        return
    for side in device.sides:
        out, along = side_axes(side)
        inset = pad_size(device) * 1.75 + 8
        pads, place = pad_row(die, side, device.pads_per_side, inset, clear=1.6 * inset)
        for pad, where in zip(pads, place, strict=True):
            if rng.random() < 0.3:
                add_pads(layout, pad[None], pad_size(device))
                end = out * (float(abs(out) @ np.array(die.size)) / 2 + distance - 3) + along * (where * 1.04)
                layout.connections.append(Connection(pair(pad), pair(end), 0.45))


def _center_pads(layout: Layout, device: DeviceType, rng: np.random.Generator) -> None:
    """A memory with two columns of pads down the middle of the die and long wires to both sides."""
    die = Die((0.0, 0.0), device.die_size, device.die_texture)
    layout.dies.append(die)
    layout.paddles.append(rectangle(die.center, (die.size[0] + 16, die.size[1] + 16)))
    size = pad_size(device)
    for side in device.sides:
        out, along = side_axes(side)
        count = device.pads_per_side
        place = np.linspace(-1, 1, count) * die.size[1] * 0.43
        pads = out * size * 0.75 + place[:, None] * along
        add_pads(layout, pads, size)
        lead = (np.arange(count) - (count - 1) / 2) * device.lead_pitch
        tips = out * (die.size[0] / 2 + device.lead_gap) + lead[:, None] * along
        for pad, tip in zip(pads, tips, strict=True):
            bond_finger(layout, device, tip, pad, out, along)
        add_wires(layout, device, pads, tips, np.zeros(count), rng)


def _stack(layout: Layout, device: DeviceType, rng: np.random.Generator) -> None:
    """Four dies stacked like shingles; wires cascade from die to die and down to the substrate."""
    out, along = side_axes(device.sides[0])
    steps, shift = 4, 30.0
    count = device.pads_per_side
    rows: list[Points] = []
    for level in range(steps):
        center = -out * (shift * (level - 0.6)) + along * float(rng.uniform(-1, 1))
        die = Die(pair(center), device.die_size, device.die_texture, level)
        layout.dies.append(die)
        pads, _ = pad_row(die, device.sides[0], count, pad_size(device) * 0.5 + 5)
        add_pads(layout, pads, pad_size(device))
        rows.append(pads)
    half = float(abs(out) @ np.array(device.die_size)) / 2
    place = (np.arange(count) - (count - 1) / 2) * device.lead_pitch
    tips = out * (half + 0.6 * shift + device.lead_gap) + place[:, None] * along
    for pad, tip in zip(rows[0], tips, strict=True):
        bond_finger(layout, device, tip, pad, out, along)
    add_wires(layout, device, rows[0], tips, np.zeros(count), rng)
    for lower, upper in pairwise(rows):
        for low, high in zip(lower, upper, strict=True):
            if rng.random() > 0.07:
                end = low - out * device.ball_diameter * 0.35
                layout.connections.append(Connection(pair(high), pair(end), 0.7))


def _die_pair(layout: Layout, device: DeviceType, rng: np.random.Generator) -> None:
    """Two dies side by side: wires from die to die between them, wires to the leads on the other sides."""
    width, height = device.die_size
    gap = 52.0
    left = Die((-(width + gap) / 2 + 2, 6.0), (width, height), device.die_texture)
    right = Die(((width + gap) / 2 - 4, -8.0), (width * 0.92, height * 0.78), "logic")
    layout.dies.extend([left, right])
    if device.package == "lead_frame":
        _paddle(layout, (0.0, 0.0), (2 * width + gap + 44, height + 44), "X")
    else:
        layout.paddles.extend(rectangle(die.center, (die.size[0] + 26, die.size[1] + 26)) for die in (left, right))
    for die, side in ((left, "W"), (left, "N"), (left, "S"), (right, "E"), (right, "N"), (right, "S")):
        if side in device.sides:
            part = device if side in "EW" else fewer(device, 0.55)
            connect_row(layout, part, die, side, rng)
    pad = pad_size(device)
    count = max(2, device.pads_per_side - 2)
    first, _ = pad_row(left, "E", count, pad * 0.5 + 6, 0.6)
    second = pad_row(right, "W", count, pad * 0.5 + 6, 0.8)[0][::-1]
    add_pads(layout, first, pad)
    add_pads(layout, second, pad)
    layout.connections.extend(Connection(pair(a), pair(b), 0.7) for a, b in zip(first, second, strict=True))


def _grid(layout: Layout, device: DeviceType, rng: np.random.Generator) -> None:
    """Light-emitting dies in a 3 x 3 grid, each with a wire or two to the land of the next column."""
    pitch = 160.0
    for row in range(3):
        for column in range(3):
            center = np.array([(column - 1) * pitch - 12, (row - 1) * pitch]) + rng.uniform(-2, 2, 2)
            die = Die(pair(center), device.die_size, device.die_texture)
            layout.dies.append(die)
            layout.paddles.append(rectangle(center + np.array([-4, 0]), (device.die_size[0] + 34, pitch - 34)))
            land = center + np.array([device.die_size[0] / 2 + device.lead_gap + 18, 0])
            layout.leads.append(rectangle(land, (34.0, pitch - 34)))
            for sign in (-1, 1):
                pad = center + np.array([device.die_size[0] * 0.22, sign * device.die_size[1] * 0.3])
                layout.pads.append((*pair(pad), device.ball_diameter * 1.35, device.ball_diameter * 1.35))
                end = land + np.array([-4, sign * (device.lead_pitch * 0.5 + float(rng.uniform(-6, 6)))])
                layout.connections.append(Connection(pair(pad), pair(end)))


def _power(layout: Layout, device: DeviceType, rng: np.random.Generator) -> None:
    """One large die on a heat spreader, few thick wires to leads on one side; the outer leads get their own posts."""
    side = device.sides[0]
    out, along = side_axes(side)
    die = Die(pair(-out * 52 + along * float(rng.uniform(-6, 6))), device.die_size, device.die_texture)
    layout.dies.append(die)
    half = float(abs(out) @ np.array(die.size)) / 2
    spread = np.array([die.size[0] + 110, die.size[1] + 84])
    center = np.array(die.center) - out * 14
    layout.paddles.append(rectangle(center, (float(spread[0]), float(spread[1]))))
    layout.paddles.append(rectangle(center - out * 200, (float(spread[0]) * 0.8, 330.0)))
    count = device.pads_per_side
    place = (np.arange(count) - (count - 1) / 2) * device.lead_pitch
    depth = float(np.array(die.center) @ out) + half + device.lead_gap
    tips = depth * out + place[:, None] * along
    for tip in tips:
        post = device.lead_pitch * 0.8
        layout.leads.append(rectangle(tip + out * 20, tuple(abs(along) * post + abs(out) * 60)))
        layout.leads.append(band(np.array([tip, tip + out * REACH]), np.array([42.0, 42.0])))
    wires = 4 if device.ball_diameter == 0 else 2
    for number, tip in enumerate(tips):
        many = 1 if number == 0 else wires
        offset = (np.arange(many) - (many - 1) / 2) * max(device.wire_width * 3.4, device.ball_diameter * 1.7)
        span = die.size[0] * 0.27
        where = np.clip(place[number] * 0.72, -span, span) + offset
        for shift, spot in zip(offset, where, strict=True):
            deep = half - 26 - (36 if many > 1 and shift > 0 and device.ball_diameter == 0 else 0)
            pad = np.array(die.center) + out * deep + along * spot
            if device.ball_diameter:
                layout.pads.append((*pair(pad), pad_size(device) * 1.2, pad_size(device) * 1.5))
            end = tip + along * shift + out * (8 + 4 * float(rng.uniform(-1, 1)))
            layout.connections.append(Connection(pair(pad), pair(end)))


def _module(layout: Layout, device: DeviceType, rng: np.random.Generator) -> None:
    """A power module: four dies on copper of a ceramic, rows of parallel wires to the next copper area."""
    for row in range(2):
        y = (row - 0.5) * 236
        layout.paddles.append(rectangle((-110.0, y), (270.0, 214.0)))
        layout.leads.append(rectangle((168.0, y), (206.0, 214.0)))
        for column in range(2):
            width, height = device.die_size
            center = np.array([-56.0 if column else -205.0, y + float(rng.uniform(-4, 4))])
            die = Die(pair(center), (width * (1.0 if column else 0.55), height * (1.0 if column else 0.7)), "power")
            layout.dies.append(die)
            count = device.pads_per_side if column else max(2, device.pads_per_side - 2)
            place = (np.arange(count) - (count - 1) / 2) * device.lead_pitch
            for number, spot in enumerate(place):
                pad = center + np.array([die.size[0] * (0.12 + 0.12 * (number % 2)), spot])
                reach = device.die_size[0] / 2 + device.lead_gap + 14 * (number % 2)
                end_x = center[0] + reach if column else center[0] + die.size[0] / 2 + 19
                end = np.array([end_x, spot * 1.04 + y])
                layout.connections.append(Connection(pair(pad), pair(end)))


def _card(layout: Layout, device: DeviceType, rng: np.random.Generator) -> None:
    """A chip-card module: black tape with punched holes, the contacts' back side seen through them."""
    die = Die((float(rng.uniform(-4, 4)), float(rng.uniform(-4, 4))), device.die_size, device.die_texture)
    layout.dies.append(die)
    layout.openings.append(rectangle((0.0, 0.0), (die.size[0] + 60, die.size[1] + 64)))
    for side in device.sides:
        out, along = side_axes(side)
        pads, _ = pad_row(die, side, device.pads_per_side, pad_size(device) * 0.5 + 7, 0.78)
        add_pads(layout, pads, pad_size(device))
        lead = (np.arange(device.pads_per_side) - (device.pads_per_side - 1) / 2) * device.lead_pitch
        for pad, spot in zip(pads, lead, strict=True):
            hole = out * (die.size[0] / 2 + device.lead_gap + 16) + along * spot
            layout.leads.append(ellipse(hole, (28.0, 28.0)))
            direction = (hole - pad) / np.linalg.norm(hole - pad)
            layout.connections.append(Connection(pair(pad), pair(hole - direction * 4)))
    layout.traces.extend((np.array([[x, -REACH], [x, REACH]]), 3.0) for x in (-236.0, 236.0))


def _mems(layout: Layout, device: DeviceType, rng: np.random.Generator) -> None:
    """A sensor die with a round membrane and its circuit next to it: wires from die to die and to the substrate."""
    width, height = device.die_size
    sensor = Die((-96.0, 34.0), (width, height), "mems")
    circuit = Die((104.0, 30.0), (width * 0.66, height * 0.86), "analog")
    layout.dies.extend([sensor, circuit])
    layout.paddles.extend(rectangle(die.center, (die.size[0] + 24, die.size[1] + 24)) for die in (sensor, circuit))
    for side in device.sides:
        part = device if side in "EW" else fewer(device, 0.8)
        connect_row(layout, part, circuit, side, rng)
    connect_row(layout, fewer(device, 0.5), sensor, "N", rng)
    size = pad_size(device)
    first, _ = pad_row(sensor, "E", 3, size * 0.5 + 5, 0.62)
    second = pad_row(circuit, "W", 3, size * 0.5 + 5, 0.62)[0][::-1]
    add_pads(layout, first, size)
    add_pads(layout, second, size)
    layout.connections.extend(Connection(pair(b), pair(a), 0.8) for a, b in zip(first, second, strict=True))


_BUILDERS: dict[str, Callable[[Layout, DeviceType, np.random.Generator], None]] = {
    "single": _single,
    "center_pads": _center_pads,
    "stack": _stack,
    "pair": _die_pair,
    "grid": _grid,
    "power": _power,
    "module": _module,
    "card": _card,
    "mems": _mems,
}


def _laminate_clutter(layout: Layout, rng: np.random.Generator) -> None:
    """Add vias (they look like balls) and traces under the solder mask (they look like wires) near the border."""
    taken = np.array([connection.end for connection in layout.connections])
    for _ in range(34):
        side = "NESW"[int(rng.integers(4))]
        out, along = side_axes(side)
        point = out * float(rng.uniform(200, 252)) + along * float(rng.uniform(-246, 246))
        radius = float(rng.uniform(5, 8))
        if np.linalg.norm(taken - point, axis=1).min() < 40:
            continue
        layout.vias.append((*pair(point), radius))
        taken = np.concatenate([taken, point[None]])
        knee = point + out * 12 + along * float(rng.uniform(-14, 14))
        layout.traces.append((np.array([point, knee, knee + out * 120]), float(rng.uniform(2.5, 4.5))))


def _ceramic_clutter(layout: Layout, device: DeviceType, rng: np.random.Generator) -> None:
    """Add castellations and a few filled vias to a ceramic package."""
    count = 5 if device.arrangement in {"grid", "module"} else 10
    for _ in range(count):
        side = "NESW"[int(rng.integers(4))]
        out, along = side_axes(side)
        point = out * float(rng.uniform(226, 250)) + along * float(rng.uniform(-236, 236))
        layout.vias.append((*pair(point), float(rng.uniform(4, 7))))
