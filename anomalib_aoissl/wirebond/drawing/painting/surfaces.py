# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0
"""The surface of a device before bonding: substrate, leads, traces, vias, marks and stains, then the dies on top."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from ..devices import DeviceType
from ..layouts.arrangements import make_layout
from ..layouts.geometry import smooth_noise
from ..layouts.layout import Layout, Points, rectangle
from .canvas import Canvas
from .dies import paint_die, paint_pad
from .materials import MATERIALS, Surface, generator, name_key

_LAYOUT, _TEXTURE = 11, 12


@lru_cache(maxsize=32)
def device_layout(device: DeviceType, seed: int) -> Layout:
    """Return the layout that all units of a type share under one seed."""
    return make_layout(device, generator(seed, name_key(device.name), _LAYOUT))


@lru_cache(maxsize=4)
def device_surface(device: DeviceType, seed: int, lot: int, shape: tuple[int, int], unit: float) -> Surface:
    """Return the surface of a type before bonding, its centre in the middle; do not write to the maps.

    Args:
        device: The type.
        seed: Seed of the data set.
        lot: The lot: tones of materials and texture of the die differ between lots.
        shape: Height and width in samples.
        unit: Samples per reference pixel.
    """
    rng = generator(seed, name_key(device.name), _TEXTURE, lot)
    return _Painter(device, device_layout(device, seed), rng, lot, shape, unit).paint()


class _Painter(Canvas):
    """Paints the maps of one surface, from the base upwards."""

    def __init__(
        self,
        device: DeviceType,
        layout: Layout,
        rng: np.random.Generator,
        lot: int,
        shape: tuple[int, int],
        unit: float,
    ) -> None:
        super().__init__(device, rng, lot, shape, unit)
        self.layout = layout

    def paint(self) -> Surface:
        """Return the finished maps."""
        device, layout = self.device, self.layout
        self._base()
        if device.package == "laminate":
            self._weave()
        if device.package == "ceramic":
            self._pores()
        self._traces()
        for outline in layout.openings:
            self.fill([outline], "opening", bevel=2.0, lift=-1.2)
        if layout.paddles:
            self._metal(layout.paddles, device.paddle_material or device.lead_material, lift=1.0)
        if device.package == "laminate" and device.arrangement not in {"card"}:
            self._mask_opening()
        self._metal(layout.leads, device.lead_material, lift=-0.6 if device.arrangement == "card" else 1.0)
        if device.package == "lead_frame" and device.lead_material == "copper":
            self._plated_tips()
        self._vias()
        self._marks()
        self._stains()
        self._die_shadow()
        self._slopes()
        for die in layout.dies:
            paint_die(self, die)
        for pad in layout.pads:
            paint_pad(self, pad)
        return self.surface

    def _base(self) -> None:
        """Paint what lies behind everything, with an uneven tone."""
        self.apply(np.ones(self.shape, bool), self.device.base_material)
        uneven = 1 + 0.06 * smooth_noise(self.rng, self.shape, 60 * self.unit)
        self.surface.mirror *= uneven
        self.surface.diffuse *= uneven

    def _weave(self) -> None:
        """Let the glass weave show through the solder mask."""
        pitch = 11.0 * self.unit
        y, x = np.arange(self.shape[0], dtype=np.float32)[:, None], np.arange(self.shape[1], dtype=np.float32)[None]
        weave = np.sin(2 * np.pi * x / pitch) * np.sin(2 * np.pi * y / (pitch * 0.9))
        self.surface.diffuse *= 1 + 0.10 * weave
        self.height += 0.12 * self.unit * smooth_noise(self.rng, self.shape, 7 * self.unit)

    def _pores(self) -> None:
        """Give ceramic its grain boundaries, pores and faint grinding marks."""
        surface = self.surface
        fine = cv2.GaussianBlur(self.rng.standard_normal(self.shape, dtype=np.float32), (0, 0), 0.9 * self.unit + 0.2)
        fine = fine / (fine.std() + 1e-6)
        pores = np.clip(fine - 2.0, 0, 1)
        surface.diffuse *= np.clip(1 + 0.05 * fine - 0.5 * pores, 0.3, 1.2)
        surface.mirror *= np.clip(1 + 0.12 * fine - 0.6 * pores, 0.2, 1.4)

    def _traces(self) -> None:
        """Paint traces: under the solder mask they are a faint ridge, on ceramic and tape they are printed metal."""
        strokes = np.zeros(self.shape, np.uint8)
        for points, width in self.layout.traces:
            thick = max(1, round(width * self.unit))
            cv2.polylines(strokes, [self.to_samples(points)], False, 1, thick, cv2.LINE_8, 4)
        region = strokes > 0
        if self.device.package != "laminate":
            self.apply(region, self.device.lead_material, 0.92)
            return
        self.surface.diffuse[region] *= 1.9
        self.surface.mirror[region] *= 1.35
        self.raise_by(region, 0.5, 0.9)

    def _metal(self, outlines: list[Points], name: str, lift: float) -> None:
        """Paint leads, fingers or paddles: rolled or plated metal with rounded edges."""
        frame = self.device.package == "lead_frame"
        self.fill(outlines, name, bevel=3.0 if frame else 1.6, lift=lift * (0.9 if frame else 0.7))
        region = self.region(outlines)
        streak = MATERIALS[name].streak
        if streak:
            columns = round(self.shape[1] / (24 * self.unit)) + 3
            coarse = self.rng.standard_normal((self.shape[0], columns), dtype=np.float32) * np.float32(0.16)
            lines = cv2.resize(coarse, (self.shape[1], self.shape[0]), interpolation=cv2.INTER_CUBIC)
            self.surface.mirror *= np.where(region, 1 + 5.5 * streak * np.sqrt(self.unit) * lines, 1).astype(np.float32)
            self.height += np.where(region, 0.5 * streak * lines, 0).astype(np.float32)
        if self.device.package == "ceramic":
            self.height += np.where(region, 0.10 * self.soft, 0).astype(np.float32)

    def _mask_opening(self) -> None:
        """Open the solder mask around the bond fingers: a bright, fibrous strip of bare dielectric."""
        region = self.region(self.layout.leads).astype(np.uint8)
        gap = round((0.3 * self.device.lead_pitch + 3) * self.unit)
        margin = max(1, round(5 * self.unit))
        closing = np.ones((2 * gap + 1, 2 * gap + 1), np.uint8)
        grown = (
            cv2.dilate(cv2.morphologyEx(region, cv2.MORPH_CLOSE, closing), np.ones((2 * margin + 1,) * 2, np.uint8)) > 0
        )
        self.apply(grown, "opening", 0.7)
        self.raise_by(grown, -1.1, 0.8)

    def _plated_tips(self) -> None:
        """Plate the tips of copper leads with silver: a rectangle around the die, its border a little ragged."""
        out = [abs(lead[:2].mean(axis=0)).max() for lead in self.layout.leads]
        reach = float(max(out)) + 26
        leads = self.region(self.layout.leads)
        plated = self.region([rectangle((0.0, 0.0), (2 * reach, 2 * reach))]) & leads
        self.apply(plated, "silver", 1.0)

    def _vias(self) -> None:
        """Paint vias: a ring of metal around a dark hole."""
        for share, name, lift in ((1.0, self.device.lead_material, 0.4), (0.5, "tape", -0.8)):
            spots = np.zeros(self.shape, np.uint8)
            for x, y, radius in self.layout.vias:
                center = self.to_samples(np.array([x, y])).tolist()
                cv2.circle(spots, center, max(16, round(radius * share * self.unit * 16)), 1, -1, cv2.LINE_8, 4)
            self.apply(spots > 0, name, 0.8)
            self.raise_by(spots > 0, lift, 0.5)

    def _marks(self) -> None:
        """Print a text and fiducials near the corners."""
        region = np.zeros(self.shape, np.uint8)
        text = "".join(self.rng.choice(list("ABCDEFHKLMNPRSTX0123456789"), 5))
        corner = np.array([[-236.0, 244.0], [150.0, -232.0]])[int(self.rng.integers(2))]
        place = (corner * self.unit + self.middle).astype(int).tolist()
        size = 0.62 * self.unit
        cv2.putText(region, text, place, cv2.FONT_HERSHEY_SIMPLEX, size, 1, max(1, round(1.6 * self.unit)))
        for x, y in ((-226, -228), (228, 226)):
            center = (np.array([x, y]) * self.unit + self.middle).astype(int).tolist()
            if self.device.package == "lead_frame":
                cv2.circle(region, center, round(9 * self.unit), 1, -1)
            else:
                arm = 2 * round(10 * self.unit) + 1
                cv2.drawMarker(region, center, 1, cv2.MARKER_CROSS, arm, max(1, round(4 * self.unit)))
        if self.device.package == "lead_frame":
            self.apply(region > 0, "tape", 1.4)
        else:
            self.apply(region > 0, "white" if self.device.package == "laminate" else self.device.lead_material, 0.75)

    def _stains(self) -> None:
        """Let metal be oxidised and stained in patches."""
        patches = smooth_noise(self.rng, self.shape, 45 * self.unit)
        fine = smooth_noise(self.rng, self.shape, 9 * self.unit)
        self.surface.mirror *= np.clip(1 + 0.07 * patches + 0.04 * fine, 0.5, 1.3)
        self.surface.rough += np.float32(0.015) * np.clip(fine, -1, 2)

    def _slopes(self) -> None:
        """Turn the heights painted so far into slopes."""
        height = cv2.GaussianBlur(self.height, (0, 0), 0.6)
        self.surface.slope_x[:] = cv2.Sobel(height, cv2.CV_32F, 1, 0, ksize=3, scale=1 / 8)
        self.surface.slope_y[:] = cv2.Sobel(height, cv2.CV_32F, 0, 1, ksize=3, scale=1 / 8)

    def _die_shadow(self) -> None:
        """Darken the ground next to the dies, which the light reaches from one side only."""
        region = self.region([rectangle(die.center, die.size) for die in self.layout.dies]).astype(np.float32)
        shade = 1 - 0.35 * cv2.GaussianBlur(region, (0, 0), 4 * self.unit)
        self.surface.mirror *= shade
        self.surface.diffuse *= shade
