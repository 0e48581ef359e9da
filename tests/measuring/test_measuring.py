# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Measured parts against the geometry that they were drawn from: lengths, widths, angles, crossings, contacts."""

from __future__ import annotations

import csv
from itertools import pairwise
from pathlib import Path

import cv2
import networkx as nx
import numpy as np
import pytest

from anomalib_aoissl.measuring.parts import Part, measure
from anomalib_aoissl.measuring.skeleton import branches
from anomalib_aoissl.measuring.writing import draw_parts, entry, write_csv

SIZE = (200, 240)


def distance(mask: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return the distance of each pixel's centre from a polyline of (x, y), by brute force over its segments."""
    y, x = np.indices(mask.shape) + 0.5
    best = np.full(mask.shape, np.inf)
    for (x0, y0), (x1, y1) in pairwise(points):
        share = np.clip(((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / ((x1 - x0) ** 2 + (y1 - y0) ** 2), 0, 1)
        best = np.minimum(best, np.hypot(x - x0 - share * (x1 - x0), y - y0 - share * (y1 - y0)))
    return best


def drawn(*wires: tuple[np.ndarray, float], size: tuple[int, int] = SIZE) -> np.ndarray:
    """Return a mask of wires (polyline, width) with round ends."""
    mask = np.zeros(size, dtype=np.uint8)
    for points, width in wires:
        mask[distance(mask, points) <= width / 2] = 1
    return mask


def straight(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    return np.array([[x0, y0], [x1, y1]], dtype=float)


def arc(x: float, y: float, radius: float, start: float, stop: float) -> np.ndarray:
    angle = np.deg2rad(np.linspace(start, stop, 60))
    return np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], axis=1)


def ends(part: Part) -> set[tuple[int, int]]:
    """Return where a wire ends, to 20 px."""
    assert part.line is not None
    return {(round(x / 20), round(y / 20)) for x, y in part.line[[0, -1]]}


@pytest.mark.parametrize("degrees", [0, 17, 45, 73, 90, 128])
@pytest.mark.parametrize("width", [2.2, 3.0, 6.0])
def test_a_straight_wire_has_its_length_width_and_angle(degrees: float, width: float) -> None:
    way = np.array([np.cos(np.deg2rad(degrees)), -np.sin(np.deg2rad(degrees))])  # y points down
    middle, half = np.array([120.3, 100.4]), 60
    mask = drawn((np.stack([middle - half * way, middle + half * way]), width))
    (part,) = measure(mask, [1]).parts
    assert part.length == pytest.approx(2 * half + width, abs=1.5)  # its ends are round
    of_pixels = (mask.sum() - np.pi * width**2 / 4) / (2 * half)  # a level wire of 2.2 px has 2 or 3 rows
    assert part.width == pytest.approx(of_pixels, rel=0.04)
    assert of_pixels == pytest.approx(width, abs=0.8)
    assert min(abs(part.angle - degrees), 180 - abs(part.angle - degrees)) < 1.5
    assert (part.x, part.y) == pytest.approx(tuple(middle), abs=0.5)


def test_a_bent_wire_is_measured_along_its_line() -> None:
    (part,) = measure(drawn((arc(120, 150, 90, 200, 340), 4)), [1]).parts
    assert part.length == pytest.approx(np.deg2rad(140) * 90 + 4, rel=0.015)
    assert part.width == pytest.approx(4, abs=0.2)


@pytest.mark.parametrize("degrees", [90, 60, 35, 20])
def test_crossing_wires_are_two_with_their_own_ends(degrees: float) -> None:
    turn = np.deg2rad(degrees)
    way, middle = 70 * np.array([np.cos(turn), np.sin(turn)]), np.array([120.5, 100.5])
    mask = drawn((straight(40, 100.5, 200, 100.5), 3), (np.array([middle - way, middle + way]), 3))
    found = measure(mask, [1])
    assert len(found.parts) == 2
    assert len({part.connected for part in found.parts}) == 1
    assert sorted(part.length for part in found.parts) == pytest.approx([143, 163], abs=2.5)
    assert [part.width for part in found.parts] == pytest.approx([3, 3], abs=0.35)
    assert {(2, 5), (10, 5)} in [ends(part) for part in found.parts]
    assert sum(part.area for part in found.parts) == mask.sum()
    assert np.array_equal(found.labels > 0, mask > 0)


def test_three_wires_over_one_another() -> None:
    wires = [(straight(30, 40 + 20 * i, 210, 160 - 60 * i), 3.0) for i in range(3)]
    found = measure(drawn(*wires), [1])
    truth = [np.linalg.norm(points[1] - points[0]) + 3 for points, _ in wires]
    assert sorted(part.length for part in found.parts) == pytest.approx(sorted(truth), abs=3)


def test_wires_that_touch_side_by_side_are_two() -> None:
    upper = np.array([[20, 60], [90, 98], [150, 98], [220, 60]], dtype=float)
    lower = np.array([[20, 140], [90, 101.5], [150, 101.5], [220, 140]], dtype=float)
    found = measure(drawn((upper, 4), (lower, 4)), [1])
    assert len(found.parts) == 2
    truth = np.linalg.norm(np.diff(upper, axis=0), axis=1).sum() + 4
    assert [part.length for part in found.parts] == pytest.approx([truth, truth], rel=0.03)
    assert {frozenset(ends(part)) for part in found.parts} == {
        frozenset({(1, 3), (11, 3)}),
        frozenset({(1, 7), (11, 7)}),
    }


def test_a_wire_that_ends_on_another_is_one_of_two() -> None:
    found = measure(drawn((straight(30, 100, 210, 100), 3), (straight(120, 100, 120, 30), 3)), [1])
    assert sorted(part.length for part in found.parts) == pytest.approx([72, 183], abs=4)


def test_a_pad_is_one_part_with_the_sides_of_its_box() -> None:
    mask = np.zeros(SIZE, dtype=np.uint8)
    mask[50:90, 30:100] = 2
    mask[60:62, 60:140] = 1  # a wire that ends on it
    mask[120:150, 150:180] = 3
    mask[150, 150:180] = 255
    pad, other = measure(mask, [2, 3]).parts
    assert (pad.length, pad.width, pad.angle, pad.line) == (70, 40, 0, None)
    assert pad.area == 70 * 40 - 80
    assert pad.touching == (1,)
    assert (other.length, other.width, other.x, other.y, other.touching) == (30, 30, 165, 135, ())


def test_a_disc_has_its_diameter() -> None:
    mask = drawn((straight(100, 80, 100, 80.01), 31))
    (part,) = measure(mask, [1]).parts
    assert (part.length, part.width) == pytest.approx((31, 31), abs=1)


def test_pads_with_wires_across_them_stay_whole() -> None:
    mask = np.zeros(SIZE, dtype=np.uint8)
    mask[40:120, 40:140] = 2
    for left in (60, 90, 120):
        mask[20:90, left : left + 3] = 1
    (pad,) = measure(mask, [2]).parts
    assert (pad.length, pad.width) == (100, 80)


def test_what_is_cut_small_or_not_asked_for() -> None:
    mask = drawn((straight(-10, 50, 80, 50), 3))
    mask[150, 150:153] = 1
    mask[170:180, 100:110] = 2
    found = measure(mask, [1])
    assert [part.cut for part in found.parts] == [True]
    assert found.specks == 1
    assert [part.class_index for part in measure(mask, [2, 1], 3).parts] == [2, 1, 1]
    assert measure(np.zeros((5, 5), np.uint8), [1]).parts == []


def test_branches_of_a_cross_and_of_a_circle() -> None:
    cross = np.zeros((41, 41), dtype=bool)
    cross[20, :] = cross[:, 20] = True
    found = branches(cross)
    assert sorted(branch.nodes.count(-1) for branch in found) == [1, 1, 1, 1]
    assert sum(len(branch.points) for branch in found) >= 4 * 18
    y, x = np.indices((61, 61)) - 30
    ring = abs(np.hypot(x, y) - 22) < 2
    (circle,) = branches(ring)
    assert circle.length == pytest.approx(2 * np.pi * 22, rel=0.08)  # of pixel steps


def test_csv_and_picture(tmp_path: Path) -> None:
    mask = drawn((straight(30, 100, 210, 100), 4))
    mask[80:120, 205:235] = 2
    names = ("background", "wire", "pad")
    found = measure(mask, [1, 2])
    write_csv(tmp_path / "parts.csv", [entry("u1", part, names, 2.5, "blurred") for part in found.parts], 2.5)
    with (tmp_path / "parts.csv").open(newline="") as file:
        wire, pad = csv.DictReader(file)
    assert (wire["class"], wire["touching"], pad["touching"]) == ("wire", "pad", "wire")
    assert float(wire["length_um"]) == pytest.approx(2.5 * float(wire["length_px"]), abs=0.02)
    assert float(pad["area_um2"]) == pytest.approx(2.5**2 * float(pad["area_px"]))
    assert float(pad["width_um"]) == 75
    assert (wire["fault"], wire["centre_line"]) == ("blurred", "1")
    picture = draw_parts(np.zeros((*mask.shape, 3), np.uint8), mask, found, names)
    assert picture.width == 5 * mask.shape[1]
    assert picture.getpixel((5 * 50 + 2, 5 * 101)) != (0, 0, 0)


@pytest.mark.parametrize(("length", "stub"), [(18, 6), (22, 8), (26, 12)])
def test_a_wire_thinner_than_its_class_and_its_stub_are_measured_along_the_wire(length: float, stub: float) -> None:
    """Both are shorter than wires of the class are wide."""
    thin = straight(150, 120, 150 + length, 120), straight(160, 120, 160, 120 - stub)
    part = measure(drawn((straight(30, 40, 210, 40), 30), (thin[0], 2), (thin[1], 2)), [1]).parts[1]
    assert part.length == pytest.approx(length + 2, abs=0.6)
    assert part.width == pytest.approx(2, abs=0.3)


_SHORT = """
##.#....#
##.....#.
......#.#
..#.#.#..
..###...#
.#.....#.
.#.#..#..
####.###.
#........
.##...#..
##.......
"""
_ALL_SHARED = """
###..#...#
####......
####......
#####.....
#####.....
#######...
######....
.######...
.#########
..######..
..######.#
#..#######
...######.
....#####.
....######
.....#####
.#...#####
...##.####
....#.####
...#...###
.......###
........##
........##
.........#
......#.#.
"""


@pytest.mark.parametrize("drawing", [_SHORT, _ALL_SHARED])
def test_a_line_that_is_wider_than_long_or_has_no_place_of_its_own_is_measured_as_a_box(drawing: str) -> None:
    mask = np.array([[pixel == "#" for pixel in row] for row in drawing.split()]).astype(np.uint8)
    found = measure(mask, [1])
    part = found.parts[-1]
    rows, columns = np.nonzero(found.labels == part.number)
    _, sides, _ = cv2.minAreaRect(np.stack([columns, rows], axis=1).astype(np.float32))
    assert (part.length, part.width) == pytest.approx((max(sides) + 1, min(sides) + 1), abs=1e-4)
    assert part.line is None


@pytest.mark.parametrize("radius", [25.0, 60.0])
def test_a_closed_loop_has_its_circumference(radius: float) -> None:
    y, x = np.indices(SIZE) + 0.5
    mask = (abs(np.hypot(x - 110, y - 95) - radius) <= 3).astype(np.uint8)
    (part,) = measure(mask, [1]).parts
    assert part.length == pytest.approx(2 * np.pi * radius, rel=0.03)
    assert part.width == pytest.approx(6, rel=0.05)


def test_of_a_speckled_mask_no_pairs_of_very_many_ends_are_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has hundreds of ends at a place, whose pairs would take minutes."""
    sizes: list[int] = []

    def matching(graph: nx.Graph) -> set[tuple[int, int]]:
        sizes.append(len(graph))
        return nx.algorithms.max_weight_matching(graph)

    monkeypatch.setattr(nx, "max_weight_matching", matching)
    mask = (np.random.default_rng(0).random((120, 120)) < 0.8).astype(np.uint8)
    found = measure(mask, [1], 10)
    assert sum(part.area for part in found.parts) > 0.7 * mask.size
    assert max(sizes, default=0) <= 40
