# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0
"""Look-alikes of a layout: vias that resemble balls and traces that resemble wires."""

from __future__ import annotations

import numpy as np

from ..devices import DeviceType
from .layout import Layout, side_axes
from .rows import pair


def laminate_clutter(layout: Layout, rng: np.random.Generator) -> None:
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


def ceramic_clutter(layout: Layout, device: DeviceType, rng: np.random.Generator) -> None:
    """Add castellations and a few filled vias to a ceramic package."""
    count = 5 if device.arrangement in {"grid", "module"} else 10
    for _ in range(count):
        side = "NESW"[int(rng.integers(4))]
        out, along = side_axes(side)
        point = out * float(rng.uniform(226, 250)) + along * float(rng.uniform(-236, 236))
        layout.vias.append((*pair(point), float(rng.uniform(4, 7))))
