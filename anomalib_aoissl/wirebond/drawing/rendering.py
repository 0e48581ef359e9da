# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0
"""Draw a unit: bonds and epoxy on the surface, then the same scene under coaxial and under ring light."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from anomalib_aoissl.plugin.arguments import SEED, number, size_of, validate, whole

from . import optics
from .devices import DEVICES, DeviceType
from .layouts.geometry import Map, Unit, place_unit, smooth_noise
from .layouts.layout import Points
from .painting.materials import MATERIALS, Surface, generator, lot_tone, name_key
from .painting.surfaces import device_layout, device_surface
from .raster import ball_samples, label_mask, shifted_wires, wedge_samples, wire_samples

_UNIT = 21


@dataclass(frozen=True)
class Drawing:
    """One unit under two lights, with its labels.

    Attributes:
        bright_field: Coaxial bright field, uint8 [H, W].
        dark_field: Ring-light dark field, uint8 [H, W].
        mask: Index into ``CLASS_NAMES``, uint8 [H, W].
    """

    bright_field: NDArray[np.uint8]
    dark_field: NDArray[np.uint8]
    mask: NDArray[np.uint8]


def draw(
    device: DeviceType | str,
    *,
    seed: int,
    unit: int = 0,
    lot: int = 0,
    size: tuple[int, int] = (512, 512),
    difficulty: float = 0.5,
    change: Callable[[Unit], Unit] | None = None,
) -> Drawing:
    """Return one unit of a device type, the same bytes for the same arguments.

    Args:
        device: A device type or a name in ``DEVICES``.
        seed: Seed of the data set, 0 or more. One seed and type share the layout and the texture of the die.
        unit: Number of the unit, 0 or more: placement, bonds, wire bow, defects, dust and noise differ.
        lot: Number of the lot, 0 or more: light, tones of the materials and texture of the die differ.
        size: Height and width in px, each at least 32.
        difficulty: 0 to 1: noise, defocus, distractors, loss of contrast, bow of the wires.
        change: Changes the geometry before it is drawn, such as to a defect's; it must keep the numbers of wires,
            balls and wedges, so that all else stays as it was.

    Raises:
        ValueError: If the name is unknown or a number is out of its range.
    """
    device = check_arguments(device, seed=seed, unit=unit, lot=lot, size=size, difficulty=difficulty)
    samples = 2 if min(size) >= 384 else 3 if min(size) >= 160 else 4
    layout = device_layout(device, seed)
    rng = generator(seed, name_key(device.name), _UNIT, lot, unit)
    scene = place_unit(layout, device, rng, size, samples, difficulty)
    scene = scene if change is None else change(scene)
    light = optics.Lighting.of_lot(lot, device, rng, difficulty)
    surface = _static(device, seed, lot, scene, size, samples)
    fine = (size[0] * samples, size[1] * samples)
    optics.add_scratches(surface, rng, difficulty, scene.scale * samples)
    _fillet(surface, scene, device, lot, rng, samples)
    _wedges(surface, scene, device, lot, size, samples)
    _balls(surface, scene, device, lot, size, samples)
    shadow = shifted_wires(scene, fine, samples, light.shadow)
    _wires(surface, scene, device, lot, size, samples, shadow, rng)
    bright, dark = optics.shade(surface, light, shadow)
    _glob(bright, dark, scene, device, rng, samples)
    optics.add_dust(bright, dark, rng, difficulty, scene.scale * samples)
    images = [
        optics.expose(optics.reduce(field, size), light, channel, rng, difficulty, scene.scale)
        for channel, field in enumerate((bright, dark))
    ]
    return Drawing(images[0], images[1], label_mask(scene, size))


DRAWING_RULES = {
    "seed": SEED,
    "unit": whole("[0, inf)"),
    "lot": whole("[0, inf)"),
    "size": size_of("[32, inf)"),
    "difficulty": number("[0, 1]"),
}
"""What a drawing may be asked for."""


def check_arguments(
    device: DeviceType | str, *, seed: int, unit: int, lot: int, size: tuple[int, int], difficulty: float
) -> DeviceType:
    """Return the device type after checking all arguments of ``draw``."""
    if isinstance(device, str):
        if device not in DEVICES:
            msg = f"There is no device type {device!r}; choose one of {sorted(DEVICES)} or give a DeviceType."
            raise ValueError(msg)
        device = DEVICES[device]
    validate(DRAWING_RULES, {"seed": seed, "unit": unit, "lot": lot, "size": size, "difficulty": difficulty})
    return device


def _static(device: DeviceType, seed: int, lot: int, scene: Unit, size: tuple[int, int], samples: int) -> Surface:
    """Return the unbonded surface of the type, turned and shifted into the image of this unit."""
    unit = scene.scale * samples
    margin = 2 * round(0.05 * max(size) * samples + 8)
    shape = (size[0] * samples + margin, size[1] * samples + margin)
    static = device_surface(device, seed, lot, shape, unit)
    # Samples of the surface and of the image, both measured from the middle of their first sample.
    inverse = cv2.invertAffineTransform(scene.affine)
    warp = np.empty((2, 3))
    warp[:, :2] = inverse[:, :2] * scene.scale
    first = inverse @ np.array([0.5 / samples, 0.5 / samples, 1.0])
    warp[:, 2] = first * unit + np.array([shape[1], shape[0]]) / 2 - 0.5
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    target = (size[1] * samples, size[0] * samples)
    return Surface(
        *(
            np.asarray(cv2.warpAffine(field, warp, target, flags=flags, borderMode=cv2.BORDER_REFLECT_101), np.float32)
            for field in static.maps()
        )
    )


def _fillet(
    surface: Surface, scene: Unit, device: DeviceType, lot: int, rng: np.random.Generator, samples: int
) -> None:
    """Paint the die attach epoxy: a grainy slope that falls away from the die, with silver flakes or a gloss."""
    inside = (scene.fillet > 0) & (scene.ground > 0)
    material = MATERIALS[device.epoxy_material]
    tone = lot_tone(device.epoxy_material, lot, device)
    shape = inside.shape
    unit = scene.scale * samples
    fine = cv2.GaussianBlur(rng.standard_normal(shape, dtype=np.float32), (0, 0), 0.55 * unit + 0.2) * (
        1.9 * unit + 0.8
    )
    coarse = smooth_noise(rng, shape, 5 * unit)
    flakes = np.clip(fine - 1.3, 0, 2) * (material.grain > 0.15)
    body = np.clip(1 + material.grain * (0.8 * fine + 0.7 * coarse), 0.2, 2) * tone
    depth = np.clip(scene.fillet / max(device.epoxy_width * scene.scale, 1.0), 0, 1.5)
    height = np.maximum(scene.fillet, -3.0) * samples * 0.5 + coarse * (
        1.1 * unit if material.grain > 0.15 else 0.35 * unit
    )
    height = cv2.GaussianBlur(height.astype(np.float32), (0, 0), 0.8 * unit)
    np.copyto(surface.mirror, material.mirror * body + 0.35 * flakes, where=inside)
    np.copyto(surface.diffuse, material.diffuse * body * (0.85 + 0.2 * depth) + 0.10 * flakes, where=inside)
    np.copyto(surface.rough, np.float32(material.rough), where=inside)
    np.copyto(surface.slope_x, cv2.Sobel(height, cv2.CV_32F, 1, 0, ksize=3, scale=1 / 8), where=inside)
    np.copyto(surface.slope_y, cv2.Sobel(height, cv2.CV_32F, 0, 1, ksize=3, scale=1 / 8), where=inside)


def _put(surface: Surface, index: NDArray[np.int64], values: tuple[Points | float, ...]) -> None:
    """Write mirror, rough, diffuse, slope x and slope y at flat indices."""
    for field, value in zip(surface.maps(), values, strict=True):
        field.reshape(-1)[index] = value


def _wedges(surface: Surface, scene: Unit, device: DeviceType, lot: int, size: tuple[int, int], samples: int) -> None:
    """Paint wedge bonds: wire pressed flat, its sides and its end falling off, a mark of the tool across."""
    spots = wedge_samples(scene.wedges, size, samples)
    way = scene.wedges.direction[spots.spot]
    material = MATERIALS[device.wire_material]
    tone = lot_tone(device.wire_material, lot, device)
    side = np.sign(spots.v) * np.clip((np.abs(spots.v) - 0.45) / 0.55, 0, 1) ** 1.5 * 1.3
    heel = -0.9 * np.exp(-(((spots.u - 0.06) / 0.10) ** 2))
    groove = 0.55 * np.sin(2 * np.pi * (spots.u - 0.30) / 0.34) * ((spots.u > 0.3) & (spots.u < 0.98))
    tail = 1.0 * np.clip((spots.u - 0.78) / 0.22, 0, 1)
    along = heel + (groove if device.ball_diameter == 0 else 0.35 * groove) + tail
    slope_x = along * way[:, 0] - side * way[:, 1]
    slope_y = along * way[:, 1] + side * way[:, 0]
    _put(surface, spots.index, (material.mirror * tone, 0.17, 0.07, slope_x, slope_y))


def _balls(surface: Surface, scene: Unit, device: DeviceType, lot: int, size: tuple[int, int], samples: int) -> None:
    """Paint ball bonds: a round flank, the flat ring pressed by the capillary, the chamfer, the neck of the wire."""
    spots = ball_samples(scene.balls, size, samples)
    if not len(spots.index):
        return
    angle = scene.balls.angle[spots.spot]
    radius = np.sqrt(spots.u**2 + spots.v**2)
    flank = 3.0 * np.clip((radius - 0.80) / 0.20, 0, 1) ** 1.2
    chamfer = -0.80 * np.exp(-(((radius - 0.46) / 0.07) ** 2))
    neck = 1.6 * np.clip((radius - 0.14) / 0.26, 0, 1) * (radius < 0.40)
    slope = flank + chamfer + neck
    safe = np.maximum(radius, 1e-6)
    toward = np.stack([spots.u / safe, spots.v / safe], axis=1)
    cos, sin = np.cos(angle), np.sin(angle)
    slope_x = slope * (toward[:, 0] * cos - toward[:, 1] * sin)
    slope_y = slope * (toward[:, 0] * sin + toward[:, 1] * cos)
    material = MATERIALS[device.wire_material]
    tone = lot_tone(device.wire_material, lot, device)
    _put(surface, spots.index, (material.mirror * 0.95 * tone, 0.14, 0.05, slope_x, slope_y))


def _wires(
    surface: Surface,
    scene: Unit,
    device: DeviceType,
    lot: int,
    size: tuple[int, int],
    samples: int,
    shadow: Map,
    rng: np.random.Generator,
) -> None:
    """Paint wires as cylinders that climb and fall, the higher of two crossing wires on top; free their own shadow."""
    material = MATERIALS[device.wire_material]
    tones = lot_tone(device.wire_material, lot, device) * (1 + rng.normal(0, 0.05, len(scene.wires.points)))
    level = np.full(shadow.size, -1.0, np.float32)
    for layer in wire_samples(scene.wires, size, samples):
        # On its own ball the wire is seen leaving the neck; elsewhere it hides what is below.
        keep = (layer.height >= level[layer.index]) & (layer.from_start > 0.42 * scene.wires.ball_radius)
        index = layer.index[keep]
        level[index] = layer.height[keep]
        across = np.clip(layer.across[keep], -0.985, 0.985)
        cross = across / np.sqrt(1 - across**2)
        way, climb = layer.tangent[keep], -layer.climb[keep]
        slope_x = -cross * way[:, 1] + climb * way[:, 0]
        slope_y = cross * way[:, 0] + climb * way[:, 1]
        mirror = 1.3 * material.mirror * tones[layer.wire[keep]]  # drawn wire is smoother than plated metal
        _put(surface, index, (mirror, material.rough, material.diffuse * 0.8, slope_x, slope_y))
    lit = np.clip(level / max(device.loop_height * scene.scale, 1e-6), 0, 1) > 0
    shadow.reshape(-1)[lit] = 0.0


def _glob(bright: Map, dark: Map, scene: Unit, device: DeviceType, rng: np.random.Generator, samples: int) -> None:
    """Cover part of the picture with translucent encapsulant: a dome that dims, scatters and glints."""
    if device.epoxy != "glob":
        return
    material = MATERIALS[device.glob_material]
    cover = np.clip(scene.glob * samples + 0.5, 0, 1)
    depth = np.clip(scene.glob / (40 * scene.scale), 0, 1)
    dense = {"black_epoxy": 0.42, "white_epoxy": 0.5, "clear_epoxy": 0.72}.get(device.glob_material, 0.6)
    pass_bright = (1 - cover) + cover * (1 - (1 - dense) * (0.55 + 0.45 * depth))
    pass_dark = (1 - cover) + cover * (1 - 0.75 * (1 - dense) * (0.55 + 0.45 * depth))
    haze = (
        cover
        * material.diffuse
        * (0.5 + 0.5 * depth)
        * (1 + 0.08 * smooth_noise(rng, bright.shape, 20 * samples * scene.scale))
    )
    edge = np.clip(scene.glob / (22 * scene.scale), 0, 1)
    slope = 0.95 * (1 - edge) ** 1.5
    uneven = np.clip(1 + 0.55 * smooth_noise(rng, bright.shape, 45 * samples * scene.scale), 0.15, 2)
    glint = cover * 0.07 * np.exp(-0.5 * (slope / 0.12) ** 2) * uneven
    rim = cover * 0.16 * np.exp(-0.5 * ((slope - 0.62) / 0.16) ** 2) * uneven
    crease = cover * np.exp(-0.5 * (scene.glob / (1.5 * scene.scale)) ** 2)  # the wetting line stays dark
    pass_bright *= 1 - 0.35 * crease
    bright *= pass_bright
    bright += 0.45 * haze + glint
    dark *= pass_dark
    dark += 0.7 * haze + rim
