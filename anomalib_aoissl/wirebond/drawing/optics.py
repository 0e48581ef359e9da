# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0
"""Light and camera: coaxial and ring light, scratches and dust, vignetting, defocus and sensor noise."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from .devices import DeviceType
from .layouts.geometry import Map, smooth_noise
from .layouts.layout import Points
from .painting.materials import Surface, generator, name_key

_LIGHT = 31
_COAXIAL_SPREAD = 0.16  # half the opening of the coaxial light, as a slope of the surface
_RING_SLOPE, _RING_SPREAD, _RING_STEEP = 0.60, 0.24, 0.75  # slopes that mirror the ring light into the lens


@dataclass(frozen=True)
class Lighting:
    """Light and camera settings of a lot, with the drift of one unit.

    Attributes:
        gain: Exposure of the two channels.
        gamma: Tone curve of the two channels.
        tilt: Slope of a surface that mirrors the coaxial light best.
        ring_slope: Slope of a surface that mirrors the ring light best.
        ring_uneven: Strength and direction of the ring's uneven sides, as a vector.
        falloff: Loss of light in the corners, 0 to 1.
        gradient: Change of brightness across the image, as a vector.
        shadow: Direction in which shadows fall, px per px of height.
    """

    gain: tuple[float, float]
    gamma: tuple[float, float]
    tilt: Points
    ring_slope: float
    ring_uneven: Points
    falloff: float
    gradient: Points
    shadow: Points

    @staticmethod
    def of_lot(lot: int, device: DeviceType, rng: np.random.Generator, difficulty: float) -> Lighting:
        """Return the light of a lot (the same machine for all types, set up a little for each) and unit."""
        base = generator(_LIGHT, lot)
        setup = generator(_LIGHT, lot, name_key(device.name))
        shift = 0.0 if lot == 0 else 1.0
        gain = np.exp(shift * base.normal(0, 0.28, 2) + setup.normal(0, 0.05, 2))
        gamma = np.exp(shift * base.normal(0, 0.22, 2))
        drift = np.exp(rng.normal(0, 0.02 + 0.05 * difficulty, 2))
        angle = 0.7 + shift * float(base.uniform(0, 2 * np.pi))
        way = np.array([np.cos(angle), np.sin(angle)])
        return Lighting(
            gain=(float(gain[0] * drift[0]), float(gain[1] * drift[1])),
            gamma=(float(gamma[0]), float(gamma[1])),
            tilt=way * (0.015 + shift * float(base.uniform(0, 0.07))) + rng.normal(0, 0.008, 2),
            ring_slope=_RING_SLOPE * float(np.exp(shift * base.normal(0, 0.15))),
            ring_uneven=way * (0.18 + shift * float(base.uniform(-0.1, 0.25))),
            falloff=float(np.clip(0.10 + 0.12 * difficulty + shift * base.uniform(-0.05, 0.2), 0, 0.5)),
            gradient=rng.normal(0, 0.02 + 0.05 * difficulty, 2) + shift * base.normal(0, 0.06, 2),
            shadow=way * 0.22,
        )


def shade(surface: Surface, light: Lighting, shadow: Map) -> tuple[Map, Map]:
    """Return the radiance of the scene under coaxial and under ring light, about 0 to 1.

    A facet model with one lobe per light: a surface mirrors the coaxial light into the lens where it lies flat, and
    the ring light where it leans by the slope of the ring; roughness widens and lowers both lobes.
    """
    blurred = cv2.GaussianBlur(shadow, (0, 0), 2.0)
    rough2 = surface.rough**2
    slope_x, slope_y = surface.slope_x, surface.slope_y
    flat2 = (slope_x - np.float32(light.tilt[0])) ** 2 + (slope_y - np.float32(light.tilt[1])) ** 2
    spread = rough2 + np.float32(_COAXIAL_SPREAD**2)
    lobe = np.exp(-0.5 * flat2 / spread) * (_COAXIAL_SPREAD**2 / spread) ** 0.35
    bright = surface.mirror * lobe + 0.42 * surface.diffuse
    bright *= 1 - 0.45 * blurred
    slope = np.sqrt(slope_x**2 + slope_y**2) + np.float32(1e-6)
    # Steeper than the nominal slope the lobe is wide: the rows of the ring reach far down.
    steep = np.where(slope > light.ring_slope, np.float32(_RING_STEEP**2), np.float32(_RING_SPREAD**2))
    ring2 = rough2 + steep
    facing = 1 + (slope_x * np.float32(light.ring_uneven[0]) + slope_y * np.float32(light.ring_uneven[1])) / slope
    ring = np.exp(-0.5 * (slope - np.float32(light.ring_slope)) ** 2 / ring2) * facing * (steep / ring2) ** 0.35
    dark = 0.95 * surface.mirror * ring + 1.0 * surface.diffuse
    dark *= 1 - 0.30 * blurred
    return np.asarray(bright, np.float32), np.asarray(dark, np.float32)


def add_scratches(surface: Surface, rng: np.random.Generator, difficulty: float, unit: float) -> None:
    """Scratch the surface: fine lines that look like wires but lie below everything that is bonded."""
    height, width = surface.mirror.shape
    for _ in range(int(rng.poisson(1 + 6 * difficulty))):
        start = rng.uniform(0, 1, 2) * (width, height)
        angle, length = float(rng.uniform(0, 2 * np.pi)), float(rng.uniform(20, 160)) * unit
        share = np.linspace(0, 1, 12)[:, None]
        bend = float(rng.normal(0, 0.08)) * length * share * (1 - share)
        way = np.array([np.cos(angle), np.sin(angle)])
        line = start + share * way * length + bend * np.array([-way[1], way[0]])
        region = np.zeros((height, width), np.uint8)
        thick = max(1, round(float(rng.uniform(0.3, 1.0)) * unit))
        cv2.polylines(region, [np.round(line).astype(np.int32)], False, 1, thick)
        where = np.flatnonzero(region)
        depth = float(rng.uniform(0.2, 0.6))
        surface.slope_x.reshape(-1)[where] += -depth * way[1]
        surface.slope_y.reshape(-1)[where] += depth * way[0]
        surface.diffuse.reshape(-1)[where] += 0.04 * depth


def add_dust(bright: Map, dark: Map, rng: np.random.Generator, difficulty: float, unit: float) -> None:
    """Drop dust and fibres: dark in the bright field, bright in the dark field; the labels below do not change."""
    height, width = bright.shape
    cover = np.zeros((height, width), np.uint8)
    for _ in range(int(rng.poisson(3 + 16 * difficulty))):
        center = (rng.uniform(0, 1, 2) * (width, height)).astype(int)
        size = float(rng.gamma(1.6, 0.9)) * unit
        corners = 7
        angle = np.sort(rng.uniform(0, 2 * np.pi, corners))
        reach = size * rng.uniform(0.5, 1.3, corners)
        shape = center + np.stack([np.cos(angle) * reach, np.sin(angle) * reach], axis=1)
        cv2.fillPoly(cover, [np.round(shape).astype(np.int32)], int(rng.integers(90, 255)))
    for _ in range(int(rng.poisson(0.3 + 1.2 * difficulty))):
        start = rng.uniform(0, 1, 2) * (width, height)
        steps = np.cumsum(rng.normal(0, 0.25, 14)) + float(rng.uniform(0, 2 * np.pi))
        line = start + np.cumsum(np.stack([np.cos(steps), np.sin(steps)], axis=1), axis=0) * 2.6 * unit
        thick = max(1, round(0.8 * unit))
        cv2.polylines(cover, [np.round(line).astype(np.int32)], False, int(rng.integers(60, 150)), thick)
    share = cv2.GaussianBlur(cover, (0, 0), 0.5 * unit + 0.2).astype(np.float32) / 255
    bright *= 1 - 0.75 * share
    bright += 0.03 * share
    dark *= 1 - share
    dark += 0.75 * share


def reduce(field: Map, size: tuple[int, int]) -> Map:
    """Return a field of samples averaged to pixels [H, W]."""
    return np.asarray(cv2.resize(field, (size[1], size[0]), interpolation=cv2.INTER_AREA), np.float32)


def expose(
    radiance: Map, light: Lighting, channel: int, rng: np.random.Generator, difficulty: float, scale: float
) -> NDArray[np.uint8]:
    """Return the camera image uint8 [H, W] of a radiance: lens, uneven light, shot and read noise, tone curve."""
    height, width = radiance.shape
    defocus = max((0.35 + 0.75 * difficulty * float(rng.uniform(0.5, 1.0))) * min(scale * 1.2, 1.0), 0.2)
    image = cv2.GaussianBlur(radiance, (0, 0), defocus)
    veil = cv2.resize(
        cv2.GaussianBlur(cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA), (0, 0), 4.0), (width, height)
    )
    image = (1 - 0.05 - 0.05 * difficulty) * image + (0.05 + 0.05 * difficulty) * veil
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None]
    even = 1 - np.float32(light.falloff) * (x * x + y * y) / 2
    even += np.float32(light.gradient[0]) * x + np.float32(light.gradient[1]) * y
    even += np.float32(0.012 + 0.02 * difficulty) * smooth_noise(rng, image.shape, 0.3 * min(image.shape))
    contrast = 1 - 0.22 * difficulty * float(rng.uniform(0.4, 1.0))
    gain = light.gain[channel] * (1.28 if channel == 0 else 1.2)
    image = np.clip(image * even * gain, 0, None) * contrast + (1 - contrast) * 0.10
    full_well = 9000.0 / (1 + 7 * difficulty)
    noise = np.sqrt(image / full_well + (0.0025 + 0.010 * difficulty) ** 2)
    image = image + noise * rng.standard_normal(image.shape, dtype=np.float32)
    image = np.clip(image, 0, 1) ** np.float32(0.85 * light.gamma[channel])
    return np.asarray(np.round(image * 250 + 3), np.uint8)
