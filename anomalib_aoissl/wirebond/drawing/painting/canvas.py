# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0
"""The canvas on which a surface is painted: its maps, its height, and the strokes that all painters share."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ..devices import DeviceType
from ..layouts.layout import Points
from .materials import MATERIALS, Surface, lot_tone


class Canvas:
    """The maps of one surface in the making.

    Args:
        device: The type of device.
        rng: Random numbers of its texture.
        lot: The lot, which decides on tones.
        shape: Height and width in samples; the centre of the device is in the middle.
        unit: Samples per reference pixel.
    """

    def __init__(
        self, device: DeviceType, rng: np.random.Generator, lot: int, shape: tuple[int, int], unit: float
    ) -> None:
        self.device, self.rng, self.lot, self.shape, self.unit = device, rng, lot, shape, unit
        self.middle = np.array([shape[1], shape[0]]) / 2
        self.height = np.zeros(shape, np.float32)
        self.grain = rng.standard_normal(shape, dtype=np.float32)
        self.soft = cv2.GaussianBlur(self.grain, (0, 0), 1.3) * 3.0
        self.surface = Surface(*(np.zeros(shape, np.float32) for _ in range(5)))

    def to_samples(self, points: Points) -> NDArray[np.int32]:
        """Return points in samples, as cv2 wants them with four fractional bits."""
        return np.round((points * self.unit + self.middle - 0.5) * 16).astype(np.int32)

    def region(self, outlines: list[Points]) -> NDArray[np.bool_]:
        """Return where the outlines lie."""
        region = np.zeros(self.shape, np.uint8)
        for outline in outlines:
            cv2.fillPoly(region, [self.to_samples(outline)], 1, cv2.LINE_8, 4)
        return region > 0

    def apply(self, region: NDArray[np.bool_], name: str, tone: float = 1.0) -> None:
        """Give a region the optical behaviour of a material, with its grain."""
        material = MATERIALS[name]
        factor = tone * lot_tone(name, self.lot, self.device)
        texture = 1 + material.grain * (0.6 * self.soft + 0.4 * self.grain)
        surface = self.surface
        np.copyto(surface.mirror, material.mirror * factor * texture, where=region)
        np.copyto(surface.diffuse, material.diffuse * factor * texture, where=region)
        np.copyto(surface.rough, np.float32(material.rough), where=region)

    def fill(self, outlines: list[Points], name: str, *, bevel: float, lift: float) -> None:
        """Paint outlines with a material whose edges rise (or fall, for a negative lift) over a bevel."""
        region = self.region(outlines)
        self.apply(region, name)
        inside = cv2.distanceTransform(region.astype(np.uint8), cv2.DIST_L2, 3) / (bevel * self.unit + 0.5)
        self.height += np.float32(lift * self.unit * bevel) * np.sqrt(
            np.clip(inside * (2 - np.minimum(inside, 1)), 0, 1)
        )

    def raise_by(self, region: NDArray[np.bool_], lift: float, edge: float) -> None:
        """Raise (or lower) a region by ``lift``, its border sloping over ``edge``, both in reference pixels."""
        soft = cv2.GaussianBlur(region.astype(np.float32), (0, 0), edge * self.unit + 0.3)
        self.height += np.float32(lift * self.unit) * soft

    def window(self, center: tuple[float, float], size: tuple[float, float]) -> tuple[slice, slice]:
        """Return rows and columns of an upright rectangle."""
        low = np.round((np.array(center) - np.array(size) / 2) * self.unit + self.middle).astype(int)
        high = np.round((np.array(center) + np.array(size) / 2) * self.unit + self.middle).astype(int)
        low, high = np.maximum(low, 0), np.maximum(high, 0)
        return slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0]))
