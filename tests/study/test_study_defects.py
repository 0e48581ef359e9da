# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Drawn defects: their masks against the geometry, by other means; the rest of the picture stays as it was."""

from itertools import pairwise

import numpy as np
import pytest
from matplotlib.path import Path as Outline
from scipy.ndimage import binary_dilation

from anomalib_aoissl.wirebond.drawing.rendering import draw
from benchmarks.study.defects import DEFECTS, Defective, draw_defect

SIZE = (160, 192)
DEVICE = "soic8_gold"


Made = dict[str, Defective]


@pytest.fixture(scope="module", params=[1000, 1003])
def unit(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(scope="module")
def made(unit: int) -> Made:
    return {kind: draw_defect(kind, DEVICE, seed=3, unit=unit, size=SIZE) for kind in DEFECTS}


def centres() -> np.ndarray:
    """The middles of all pixels ``[H * W, 2]`` as x, y."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    return np.stack([x.ravel() + 0.5, y.ravel() + 0.5], axis=1)


def near(line: np.ndarray, radius: float) -> np.ndarray:
    """Pixels whose middle lies within a radius of a polyline, which is sampled finely."""
    share = np.linspace(0, 1, 12)[:, None]
    dense = np.concatenate([a + share * (b - a) for a, b in pairwise(line)])
    places = centres()
    best = np.full(len(places), np.inf)
    for part in np.array_split(dense, 20):
        best = np.minimum(best, ((places[:, None] - part[None]) ** 2).sum(axis=2).min(axis=1))
    return (best <= radius**2).reshape(SIZE)


def moved(defective: Defective) -> np.ndarray:
    """Numbers of the wires that the defect changed."""
    before, after = defective.before.wires.points, defective.after.wires.points
    return np.flatnonzero((before != after).any(axis=(1, 2)))


def agreement(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


def test_the_picture_changes_where_the_defect_is_and_not_elsewhere(made: Made, unit: int) -> None:
    """Where a wire of the defect was and is, it may change too, and beside it, within its loop's height, its shadow."""
    clean = draw(DEVICE, seed=3, unit=unit, size=SIZE)
    for kind, defective in made.items():
        change = np.abs(defective.drawing.dark_field.astype(int) - clean.dark_field) > 24
        assert change[defective.defect].mean() > 0.15, kind
        allowed = defective.defect.copy()
        for scene in (defective.before, defective.after):
            for index in moved(defective):
                allowed |= near(scene.wires.points[index], scene.wires.radius)
        assert not (change & ~binary_dilation(allowed, iterations=12)).any(), kind


def test_a_missing_wire_is_its_line_its_ball_and_its_wedge(made: Made) -> None:
    defective = made["missing wire"]
    (index,) = moved(defective)
    unit = defective.before
    expected = near(unit.wires.points[index], unit.wires.radius)
    expected |= near(np.repeat(unit.balls.center[index][None], 2, axis=0), unit.wires.ball_radius)
    end = unit.wedges.start[index]
    expected |= near(np.stack([end, end + unit.wedges.direction[index] * unit.wedges.length[index]]), unit.wires.radius)
    assert agreement(defective.defect, expected) > 0.75
    assert (defective.after.wires.points[index] < -1000).all()
    others = np.arange(len(unit.balls.center)) != index
    assert np.array_equal(defective.after.balls.center[others], unit.balls.center[others])


def test_a_lifted_ball_lies_off_its_pad_and_its_wire_ends_in_it(made: Made) -> None:
    defective = made["lifted ball"]
    (index,) = moved(defective)
    radius = defective.before.wires.ball_radius
    places = [scene.balls.center[index] for scene in (defective.before, defective.after)]
    assert np.linalg.norm(places[1] - places[0]) == pytest.approx(2.6 * radius)
    assert np.allclose(
        defective.after.wires.points[index, 0] - places[1], defective.before.wires.points[index, 0] - places[0]
    )
    assert np.array_equal(defective.after.wires.points[index, -1], defective.before.wires.points[index, -1])
    expected = sum(near(np.repeat(place[None], 2, axis=0), radius) for place in places) > 0
    assert agreement(defective.defect, expected) > 0.8


def test_crossed_wires_swap_their_ends_and_are_marked_where_no_wire_was(made: Made) -> None:
    defective = made["crossed wires"]
    first, second = moved(defective)
    before, after = defective.before.wires.points, defective.after.wires.points
    assert np.allclose(after[[first, second], -1], before[[second, first], -1])
    assert np.allclose(after[[first, second], 0], before[[first, second], 0])
    radius = defective.before.wires.radius
    gap = np.linalg.norm(after[first][:, None] - after[second][None], axis=2).min()
    assert gap < np.linalg.norm(np.diff(after[first], axis=0), axis=1).max()  # they meet
    new = near(after[first], radius) | near(after[second], radius)
    old = np.any([near(line, radius) for line in before], axis=0)
    assert agreement(defective.defect, new & ~old) > 0.8


def test_a_particle_is_inside_its_outline(made: Made) -> None:
    defective = made["particle"]
    inside = Outline(defective.outline).contains_points(centres()).reshape(SIZE)
    assert agreement(defective.defect, inside) > 0.93


def test_a_crack_is_near_its_line_and_begins_at_the_edge_of_the_die(made: Made) -> None:
    defective = made["crack"]
    assert len(defective.outline) == 13
    assert agreement(defective.defect, near(defective.outline, 0.6)) > 0.7
    steps = np.linalg.norm(np.diff(defective.outline, axis=0), axis=1)
    assert np.allclose(steps, steps[0])


def test_the_same_arguments_give_the_same_defect_and_wrong_ones_are_named() -> None:
    one, other = (draw_defect("particle", DEVICE, seed=1, unit=1000, size=(64, 64)) for _ in range(2))
    assert np.array_equal(one.drawing.bright_field, other.drawing.bright_field)
    with pytest.raises(ValueError, match=r"no defect 'bent wire'.*'missing wire'"):
        draw_defect("bent wire", DEVICE, seed=1, unit=1000)
    with pytest.raises(ValueError, match="power_to220_aluminium has no ball bonds"):
        draw_defect("lifted ball", "power_to220_aluminium", seed=1, unit=1000)
