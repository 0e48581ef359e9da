# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0
"""Rows of a layout: bond pads along a side of a die, the leads or bond fingers they go to, and the wires between."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..devices import DeviceType
from .layout import REACH, Connection, Die, Layout, Points, band, rectangle, side_axes, stadium


def pad_row(
    die: Die, side: str, count: int, inset: float, fill: float = 0.84, clear: float = 0.0
) -> tuple[Points, Points]:
    """Return pad centres [count, 2] along a side of a die, ``clear`` of its corners, and their places along it."""
    out, along = side_axes(side)
    half = np.array(die.size) / 2
    half_out, half_along = float(abs(out) @ half), float(abs(along) @ half)
    span = min(half_along * fill, half_along - clear)
    place = np.linspace(-1, 1, count) * span if count > 1 else np.zeros(1)
    return np.array(die.center) + out * (half_out - inset) + place[:, None] * along, place


def pad_size(device: DeviceType) -> float:
    """Return the edge length of a bond pad, a little larger than what is bonded to it."""
    return device.ball_diameter * 1.25 + 1 if device.ball_diameter else device.wire_width * 2.4


def add_pads(layout: Layout, centers: Points, size: float) -> None:
    """Add square pads at the centres [N, 2]."""
    layout.pads.extend((float(x), float(y), size, size) for x, y in centers)


def lead_finger(layout: Layout, device: DeviceType, tip: Points, out: Points, along: Points, fan: float) -> None:
    """Add a lead-frame lead: a narrow tip, a knee, then straight to the dam bar beyond the image."""
    place = float(tip @ along)
    depth = float(tip @ out)
    outer = place * fan
    width = device.lead_pitch * 0.62
    knee = max(depth + 34, 210.0)
    line = np.array(
        [
            out * depth + along * place,
            out * (depth + 16) + along * (place + (outer - place) * 0.16),
            out * knee + along * outer,
            out * (knee + 30) + along * outer,
            out * REACH + along * outer,
        ]
    )
    layout.leads.append(band(line, np.array([width, width, width * fan, width * fan, width * fan])))


def bond_finger(layout: Layout, device: DeviceType, tip: Points, pad: Points, out: Points, along: Points) -> None:
    """Add a bond finger of a substrate, turned towards its pad, with a trace that leaves towards the border."""
    direction = (tip - pad) / np.linalg.norm(tip - pad)
    length = device.wedge_length * 2.3 + 8
    width = min(device.lead_pitch * 0.62, device.wire_width * 4.6)
    center = tip + direction * (length / 2 - device.wedge_length * 0.6)
    angle = float(np.arctan2(direction[1], direction[0]))
    if device.package == "laminate":
        layout.leads.append(stadium(center, length, width, angle))
    else:
        layout.leads.append(rectangle(center, (length, width), angle))
    start = center + direction * length * 0.45
    knee = start + direction * 22
    place = float(knee @ along) * 1.12
    trace = np.array([start, knee, along * place + out * (float(knee @ out) + 14), along * place + out * REACH])
    layout.traces.append((trace, max(2.0, device.wire_width * (1.1 if device.package == "laminate" else 1.6))))


def connect_row(
    layout: Layout, device: DeviceType, die: Die, side: str, rng: np.random.Generator, *, fan: float = 1.0
) -> None:
    """Add one side of a device: pads, leads in one or two rows, and the wires between them."""
    out, along = side_axes(side)
    inset = pad_size(device) * 0.5 + 6
    clear = 2.4 * inset - 4 if len(device.sides) > 2 else 0.0
    pads, place = pad_row(die, side, device.pads_per_side, inset, clear=clear)
    pitch = float(place[1] - place[0]) if len(place) > 1 else np.inf
    add_pads(layout, pads, min(pad_size(device), 0.86 * pitch))
    half_out = float(abs(out) @ np.array(die.size)) / 2
    count = len(pads)
    middle = float(np.array(die.center) @ along)
    leads = middle + (np.arange(count) - (count - 1) / 2) * device.lead_pitch
    tier = (np.arange(count) % device.lead_tiers).astype(np.float64)
    arc = 10 * (2 * np.abs(leads - middle) / max(device.lead_pitch * count, 1)) ** 2
    reach = float(np.array(die.center) @ out) + half_out + device.lead_gap + tier * (device.wedge_length * 3.4 + 16)
    tips = (reach - arc)[:, None] * out + leads[:, None] * along
    for pad, tip in zip(pads, tips, strict=True):
        if device.package == "lead_frame":
            lead_finger(layout, device, tip, out, along, fan)
        else:
            bond_finger(layout, device, tip, pad, out, along)
    add_wires(layout, device, pads, tips, tier, rng)


def add_wires(
    layout: Layout, device: DeviceType, pads: Points, tips: Points, tier: Points, rng: np.random.Generator
) -> None:
    """Connect pads to lead tips: some pads stay free, some neighbours swap their leads, some leads get two wires."""
    target = np.arange(len(pads))
    for i in range(len(pads) - 1):
        if target[i] == i and rng.random() < device.crossing:
            target[i], target[i + 1] = i + 1, i
    depth = device.wedge_length * 0.3
    for i, pad in enumerate(pads):
        if len(pads) > 5 and rng.random() < 0.06:
            continue
        tip = tips[target[i]]
        direction = (tip - pad) / np.linalg.norm(tip - pad)
        end = tip + direction * depth
        layout.connections.append(Connection(pair(pad), pair(end), 1.0 + 0.35 * float(tier[target[i]])))


def pair(point: Points) -> tuple[float, float]:
    """Return a point as two plain numbers."""
    return float(point[0]), float(point[1])


def fewer(device: DeviceType, share: float) -> DeviceType:
    """Return the type with fewer pads on a side, the leads as much further apart."""
    count = max(2, round(device.pads_per_side * share))
    pitch = device.lead_pitch * min(device.pads_per_side / count, 1.35)
    return replace(device, pads_per_side=count, lead_pitch=pitch)
