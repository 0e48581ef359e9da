# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0
"""What a device consists of: dies, pads, leads, traces, connections, and the outlines they are made of (no pixels).

The origin is the centre of the device, x points right, y points down, lengths are reference pixels (the shorter side
of an image is 512 of them).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
_OUTWARD = {"N": (0.0, -1.0), "E": (1.0, 0.0), "S": (0.0, 1.0), "W": (-1.0, 0.0)}
REACH = 470.0  # leads and traces run this far out, past the border of images of up to about 1:1.8


@dataclass(frozen=True)
class Die:
    """A die: centre and size (width, height), its texture, and the number of dies below it."""

    center: tuple[float, float]
    size: tuple[float, float]
    texture: str
    level: int = 0


@dataclass(frozen=True)
class Connection:
    """A wire from a pad to a lead (or from die to die): ends, and loop height as a share of the type's."""

    start: tuple[float, float]
    end: tuple[float, float]
    loop: float = 1.0


@dataclass(frozen=True)
class Layout:
    """All that the units of one device type have in common.

    Attributes:
        dies: The dies, bottom first.
        pads: Bond pads on the dies: centre x, y, width, height.
        paddles: Outlines of the metal under the dies.
        leads: Outlines of leads or bond fingers.
        traces: Traces under the solder mask or printed on the ceramic: points and width.
        vias: Vias: centre x, y, radius.
        openings: Outlines of openings in the solder mask.
        connections: The wires.
    """

    dies: list[Die] = field(default_factory=list)
    pads: list[tuple[float, float, float, float]] = field(default_factory=list)
    paddles: list[Points] = field(default_factory=list)
    leads: list[Points] = field(default_factory=list)
    traces: list[tuple[Points, float]] = field(default_factory=list)
    vias: list[tuple[float, float, float]] = field(default_factory=list)
    openings: list[Points] = field(default_factory=list)
    connections: list[Connection] = field(default_factory=list)


def rectangle(center: tuple[float, float] | Points, size: tuple[float, float], angle: float = 0.0) -> Points:
    """Return the four corners [4, 2] of a rectangle; ``angle`` in radians."""
    corners = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]]) * np.asarray(size)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return np.asarray(corners @ turn + np.asarray(center), np.float64)


def ellipse(center: tuple[float, float] | Points, radii: tuple[float, float], count: int = 40) -> Points:
    """Return an ellipse as a polygon [count, 2]."""
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.asarray(center) + np.stack([np.cos(angle) * radii[0], np.sin(angle) * radii[1]], axis=1)


def stadium(center: Points, length: float, width: float, angle: float) -> Points:
    """Return the outline of a bar with round ends."""
    arc = np.linspace(-np.pi / 2, np.pi / 2, 9)
    cap = np.stack([np.cos(arc), np.sin(arc)], axis=1) * (width / 2) + np.array([(length - width) / 2, 0])
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return np.asarray(np.concatenate([cap, -cap]) @ turn + center, np.float64)


def band(center_line: Points, widths: Points) -> Points:
    """Return the outline of a band along a polyline [P, 2] with the given widths [P]."""
    step = np.gradient(center_line, axis=0)
    step /= np.linalg.norm(step, axis=1, keepdims=True)
    normal = np.stack([-step[:, 1], step[:, 0]], axis=1) * (widths[:, None] / 2)
    return np.concatenate([center_line + normal, (center_line - normal)[::-1]])


def side_axes(side: str) -> tuple[Points, Points]:
    """Return the outward unit vector of a side (N, E, S, W) and the unit vector along it."""
    out = np.array(_OUTWARD[side])
    return out, np.array([-out[1], out[0]])
