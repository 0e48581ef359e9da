# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Shapes to pixels and pixels to shapes, against matplotlib's test of points, formulas, and each other's inverse."""

import numpy as np
import pytest
from matplotlib.path import Path as Polygon
from scipy import ndimage

from anomalib_aoissl.data.labels.content import Shape
from anomalib_aoissl.data.labels.shapes.geometry import box, ellipse
from anomalib_aoissl.data.labels.shapes.joining import _Nearby, one_ring
from anomalib_aoissl.data.labels.shapes.rasterizing import fill, pixels
from anomalib_aoissl.data.labels.shapes.tracing import rings, simplified

SIZE = (37, 53)


def star(rng: np.random.Generator) -> np.ndarray:
    """Return a ring whose points go once round its middle; parts of it lie outside of the picture."""
    angle = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 12))))
    radius = rng.uniform(3, 30, len(angle))
    middle = rng.uniform((0, 0), SIZE[::-1])
    return middle + radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def blob(rng: np.random.Generator) -> np.ndarray:
    """Return a connected part with holes, fringes and pixels that touch at corners."""
    noise = ndimage.gaussian_filter(rng.random(SIZE), rng.uniform(0.3, 2))
    labels, _ = ndimage.label(noise > np.median(noise), np.ones((3, 3)))
    return labels == np.bincount(labels.ravel())[1:].argmax() + 1


@pytest.mark.parametrize("seed", range(10))
def test_a_pixel_is_filled_when_its_centre_lies_inside(seed: int) -> None:
    ring = star(np.random.default_rng(seed))
    y, x = np.indices(SIZE) + 0.5
    inside = Polygon(ring).contains_points(np.stack([x.ravel(), y.ravel()], axis=1)).reshape(SIZE)
    np.testing.assert_array_equal(fill([ring], SIZE), inside)
    rows, columns, part = pixels(Shape("a", (ring,)), SIZE)
    whole = np.zeros(SIZE, dtype=bool)
    whole[rows, columns] = part
    np.testing.assert_array_equal(whole, inside)


@pytest.mark.parametrize("seed", range(10))
def test_rings_along_the_pixels_edges_give_the_part_back(seed: int) -> None:
    part = blob(np.random.default_rng(seed))
    exact = rings(part)
    holes, count = ndimage.label(~np.pad(part, 1))
    assert len(exact) == count
    np.testing.assert_array_equal(fill(exact, SIZE), part)
    np.testing.assert_array_equal(fill([one_ring(exact)], SIZE), part)
    assert holes.any()


def test_thousands_of_holes_are_joined_by_short_cuts() -> None:
    part = np.indices((41, 60)).sum(axis=0) % 2 == 0
    exact = rings(part)
    ring = one_ring(exact)
    assert len(exact) > 1000
    assert len(ring) == sum(map(len, exact)) + 2 * (len(exact) - 1)
    np.testing.assert_array_equal(fill([ring], part.shape), part)
    steps = np.abs(np.diff(ring, axis=0)).max(axis=1)
    assert steps.max() <= 2  # px


def test_the_nearest_point_is_that_of_brute_force() -> None:
    rng = np.random.default_rng(0)
    points = [rng.uniform(0, (300, 20), (number, 2)) for number in (1, 50, 400)]
    near = _Nearby(points)
    for number, some in enumerate(points):
        near.add(number, some)
        known = np.concatenate(points[: number + 1])
        for place in rng.uniform(0, (300, 20), (30, 2)):
            ring, at = near.find(place)
            assert np.hypot(*(points[ring][at] - place)) == pytest.approx(np.hypot(*(known - place).T).min())


@pytest.mark.parametrize("seed", range(10))
def test_a_simplified_part_keeps_its_area_with_fewer_points(seed: int) -> None:
    y, x = np.indices((90, 120)) - np.array([45, 60])[:, None, None]
    turn = np.deg2rad(18 * seed + 5)
    part = abs(x * np.sin(turn) + y * np.cos(turn)) < 2 + seed
    simple = simplified(part)
    assert abs(int(fill(simple, part.shape).sum()) - part.sum()) <= 0.005 * part.sum()
    assert sum(map(len, simple)) <= max(8, 0.9 * sum(map(len, rings(part))))


def test_boxes_and_ellipses_have_their_areas() -> None:
    def area(ring: np.ndarray) -> float:
        x, y = ring.T
        return abs(float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum())) / 2

    assert area(box(10, 5, 30, 9, 33)) == pytest.approx(80)
    np.testing.assert_allclose(box(0, 0, 4, 2, 90), [[3, -1], [3, 3], [1, 3], [1, -1]], atol=1e-12)  # clockwise
    assert area(ellipse(20, 20, 9, 4, 71)) == pytest.approx(np.pi * 36, rel=1e-3)
    assert ellipse(20, 20, 9, 4, 90)[:, 1].max() == pytest.approx(29)


@pytest.mark.parametrize("rings", [(), (np.zeros((0, 2)),)])
def test_a_shape_without_points_has_no_pixel(rings: tuple[np.ndarray, ...]) -> None:
    rows, columns, part = pixels(Shape("a", rings), SIZE)
    assert np.zeros(SIZE)[rows, columns].shape == part.shape
    assert not part.any()


@pytest.mark.parametrize(("corner", "area"), [((0, 0), 12), ((-1, -2), 4), ((35, 51), 4), ((40, 60), 0), ((-9, 0), 0)])
def test_a_mask_is_cut_at_the_edge_of_the_picture(corner: tuple[int, int], area: int) -> None:
    rows, columns, part = pixels(Shape("a", mask=lambda: np.ones((3, 4), dtype=bool), corner=corner), SIZE)
    assert part.sum() == area
    assert np.zeros(SIZE)[rows, columns].shape == part.shape
