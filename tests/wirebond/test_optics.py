# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The two lights of the drawing, against the lobes' formula by hand."""

import math

import numpy as np
import pytest

from anomalib_aoissl.wirebond.drawing.optics import Lighting, shade
from anomalib_aoissl.wirebond.drawing.painting.materials import Surface

PLAIN = Lighting(
    gain=(1.0, 1.0),
    gamma=(1.0, 1.0),
    tilt=np.zeros(2),
    ring_slope=0.6,
    ring_uneven=np.zeros(2),
    falloff=0.0,
    gradient=np.zeros(2),
    shadow=np.zeros(2),
)


def radiance(slope: float, *, mirror: float = 0.5, rough: float = 0.0, diffuse: float = 0.0) -> tuple[float, float]:
    """Return what one facet sends into the lens under coaxial and under ring light."""
    maps = (np.full((4, 4), value, np.float32) for value in (mirror, rough, diffuse, slope, 0.0))
    bright, dark = shade(Surface(*maps), PLAIN, np.zeros((4, 4), np.float32))
    return float(bright[2, 2]), float(dark[2, 2])


def test_a_flat_mirror_shows_the_coaxial_light_and_falls_off_by_its_opening() -> None:
    assert radiance(0.0)[0] == pytest.approx(0.5, abs=1e-6)
    assert radiance(0.16)[0] == pytest.approx(0.5 * math.exp(-0.5), abs=1e-6)  # half the opening is a slope of 0.16
    assert radiance(0.32)[0] == pytest.approx(0.5 * math.exp(-2), abs=1e-6)


def test_a_leaning_mirror_shows_the_ring_light() -> None:
    assert radiance(0.6)[1] == pytest.approx(0.95 * 0.5, abs=1e-5)
    assert radiance(0.6 - 0.24)[1] == pytest.approx(0.95 * 0.5 * math.exp(-0.5), abs=1e-5)
    assert radiance(0.6 + 0.75)[1] == pytest.approx(0.95 * 0.5 * math.exp(-0.5), abs=1e-5)  # wider below the lens


def test_roughness_widens_and_lowers_the_coaxial_lobe_and_diffuse_light_adds() -> None:
    spread = 0.16**2 + 0.2**2
    expected = 0.5 * math.exp(-0.5 * 0.16**2 / spread) * (0.16**2 / spread) ** 0.35
    assert radiance(0.16, rough=0.2)[0] == pytest.approx(expected, abs=1e-6)
    assert radiance(5.0, diffuse=0.1) == pytest.approx((0.042, 0.1), abs=1e-5)
