# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0
"""Materials and how they look: optical maps, tones of a lot, and the random numbers that belong to a key."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from ..devices import DeviceType
from ..layouts.geometry import Map

_TONE = 13


@dataclass(frozen=True)
class Material:
    """Optical behaviour: mirror-like reflectance, spread of the slopes of its micro facets, diffuse reflectance."""

    mirror: float
    rough: float
    diffuse: float
    grain: float = 0.06
    streak: float = 0.0


MATERIALS: dict[str, Material] = {
    "gold": Material(0.80, 0.13, 0.06, 0.07),
    "copper": Material(0.60, 0.17, 0.06, 0.07, 0.10),
    "silver": Material(0.88, 0.22, 0.12, 0.09, 0.05),
    "aluminium": Material(0.90, 0.14, 0.06, 0.06),
    "nipdau": Material(0.66, 0.19, 0.09, 0.08, 0.08),
    "tape": Material(0.05, 0.12, 0.045, 0.25),
    "green": Material(0.14, 0.07, 0.085, 0.06),
    "black": Material(0.10, 0.08, 0.035, 0.08),
    "opening": Material(0.10, 0.30, 0.15, 0.16),
    "alumina": Material(0.12, 0.55, 0.40, 0.10),
    "white": Material(0.14, 0.50, 0.52, 0.07),
    "silver_epoxy": Material(0.22, 0.45, 0.26, 0.22),
    "clear_epoxy": Material(0.16, 0.08, 0.10, 0.05),
    "black_epoxy": Material(0.09, 0.14, 0.035, 0.10),
    "white_epoxy": Material(0.12, 0.12, 0.45, 0.05),
    "bond": Material(0.76, 0.12, 0.05, 0.05),
}


@dataclass
class Surface:
    """Maps [H, W] of a scene: mirror-like and diffuse reflectance (0 to 1), roughness, slopes along x and y."""

    mirror: Map
    rough: Map
    diffuse: Map
    slope_x: Map
    slope_y: Map

    def maps(self) -> tuple[Map, Map, Map, Map, Map]:
        """Return the five maps."""
        return self.mirror, self.rough, self.diffuse, self.slope_x, self.slope_y


def generator(*key: int) -> np.random.Generator:
    """Return the random numbers that belong to a key of non-negative integers."""
    return np.random.default_rng(np.random.SeedSequence(list(key)))


def name_key(name: str) -> int:
    """Return a number for a name that is the same in every process."""
    return zlib.crc32(name.encode())


def lot_tone(material: str, lot: int, device: DeviceType) -> float:
    """Return the factor on the reflectance of a material in a lot; 1 in lot 0."""
    if lot == 0:
        return 1.0
    return float(np.exp(generator(name_key(material), name_key(device.name), _TONE, lot).normal(0, 0.24)))
