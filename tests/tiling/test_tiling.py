# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Tiles cover each pixel, their weights sum to one, and what does not fit is said."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some

from anomalib_aoissl import Tiling
from anomalib_aoissl.deployment.tiles.light import thinned
from anomalib_aoissl.deployment.tiles.tiling import Axis, chosen_tiles
from anomalib_aoissl.models.export.quantizing import TiledImages
from anomalib_aoissl.plugin.arguments import ArgumentError

sides = some.integers(1, 90)


@settings(deadline=None, max_examples=60)
@given(length=some.integers(1, 400), size=some.integers(2, 90), data=some.data())
def test_tiles_of_a_side_cover_each_pixel_and_overlap(length: int, size: int, data: some.DataObject) -> None:
    overlap = data.draw(some.integers(0, size - 1))
    axis = Axis(length, size, overlap)
    counted = np.zeros(max(length, size), int)
    total = np.zeros(max(length, size))
    for start, weight in zip(axis.starts, axis.weights, strict=True):
        assert 0 <= start <= max(length - size, 0)
        counted[start : start + size] += 1
        total[start : start + size] += weight
        assert (weight > 0).all()
    assert counted.min() >= 1
    np.testing.assert_allclose(total, 1, atol=1e-6)
    shared = [first + size - second for first, second in zip(axis.starts, axis.starts[1:], strict=False)]
    assert min(shared, default=overlap) >= overlap
    needed = 1 if length <= size else math.ceil((length - size) / (size - overlap)) + 1
    assert len(axis.starts) == needed


@settings(deadline=None, max_examples=60)
@given(length=some.integers(1, 400), size=some.integers(2, 90), data=some.data())
def test_each_pixel_is_in_the_tile_whose_border_is_furthest(length: int, size: int, data: some.DataObject) -> None:
    axis = Axis(length, size, data.draw(some.integers(0, size - 1)))
    starts = np.array(axis.starts)
    pixels = np.arange(length)
    best = np.minimum(pixels - starts[:, None], starts[:, None] + size - 1 - pixels).argmax(axis=0)
    assert [number for number, (first, end) in enumerate(axis.inner) for _ in range(first, end)] == best.tolist()


@settings(deadline=None, max_examples=60)
@given(height=sides, width=sides, tile=some.tuples(some.integers(2, 40), some.integers(2, 40)))
def test_weights_of_a_grid_sum_to_one_and_cuts_show_the_picture(height: int, width: int, tile: tuple[int, int]) -> None:
    grid = Tiling(tile, 0.25).grid((height, width))
    picture = np.random.default_rng(0).random((2, height, width), np.float32)
    mask = np.random.default_rng(1).integers(0, 5, (height, width)).astype(np.uint8)
    total = np.zeros((max(height, tile[0]), max(width, tile[1])))
    for index, place in enumerate(grid):
        rows, columns = (slice(first, first + side) for first, side in zip((place.top, place.left), tile, strict=True))
        total[rows, columns] += grid.weight(place)
        inside = picture[:, rows, columns]
        part, labels = grid.cut(picture, place), grid.cut_mask(mask, place)
        assert place.index == index
        assert part.shape[1:] == labels.shape == tile
        assert np.array_equal(part[:, : inside.shape[1], : inside.shape[2]], inside)
        assert np.array_equal(labels[: inside.shape[1], : inside.shape[2]], mask[rows, columns])
        assert (labels[inside.shape[1] :] == 255).all()
        assert (labels[:, inside.shape[2] :] == 255).all()
        assert set(np.unique(part)) <= set(np.unique(inside))  # mirrored, never zeros
    np.testing.assert_allclose(total, 1, atol=1e-6)


def test_a_weight_falls_as_a_squared_cosine() -> None:
    axis = Axis(20, 12, 4)
    expected = [math.cos(math.pi / 2 * (index + 0.5) / 4) ** 2 for index in range(4)]
    assert axis.starts == (0, 8)
    np.testing.assert_allclose(axis.weights[0], [1] * 8 + expected, atol=1e-6)
    np.testing.assert_allclose(axis.weights[1], expected[::-1] + [1] * 8, atol=1e-6)


def test_a_share_counts_for_each_side() -> None:
    assert Tiling((40, 80), 0.25).shared == (10, 20)
    assert Tiling((40, 80), 16).shared == (16, 16)
    assert Tiling.of({"size": [40, 80], "overlap": 3}) == Tiling((40, 80), 3)
    assert Tiling.of(Tiling((40, 80)).plain()) == Tiling((40, 80))
    assert Tiling(32).size == (32, 32)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((32, 32), 32), r"tiling.overlap=32 must be whole px from 0 to 31, below the tile of 32x32 px"),
        (((32, 48), 40), r"tiling.overlap=40 .*31"),
        (((32, 32), -1), r"tiling.overlap=-1"),
        (((32, 32), 1.0), r"tiling.overlap=1.0 .*share in \[0, 1\)"),
        (((32, 32), float("nan")), r"tiling.overlap=nan"),
        (((32, 32), "8"), r"tiling.overlap='8'"),
        (((32, 32), True), r"tiling.overlap=True"),
        (((0, 32), 0), r"tiling.size=\(0, 32\) must be whole numbers of px"),
        (((32, 32, 3), 0), r"tiling.size"),
        ((None, 0), r"tiling.size=None"),
    ],
)
def test_what_is_no_tiling_is_said(arguments: tuple, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        Tiling(*arguments)


def test_other_words_for_a_tiling_are_said() -> None:
    with pytest.raises(ArgumentError, match="must be null, or have size"):
        Tiling.of({"tile": 32})
    with pytest.raises(ArgumentError, match="must be null, or have size"):
        Tiling.of(32)  # type: ignore[arg-type]


def test_a_tile_of_a_few_pixels_is_taken_for_a_mistake() -> None:
    with pytest.raises(ArgumentError, match="cuts 6440x12880 px into 20736800 tiles"):
        Tiling((2, 2), 0).grid((6440, 12880))


def test_8_bits_see_tiles_and_count_each_pixel() -> None:
    random = np.random.default_rng(4)
    image, mask = random.random((3, 20, 26), np.float32), random.integers(0, 3, (20, 26)).astype(np.uint8)
    items = [SimpleNamespace(image=image, gt_mask=mask), SimpleNamespace(image=image[:, :9], gt_mask=None)]
    tiles = list(TiledImages(items, Tiling((12, 16), 2)))
    assert [tile.image.shape for tile in tiles] == [(1, 3, 12, 16)] * 6
    corners = ((0, 0), (0, 10), (8, 0), (8, 10))
    for tile, (top, left) in zip(tiles, corners, strict=False):
        assert np.array_equal(tile.image[0], image[:, top : top + 12, left : left + 16])
        assert np.array_equal(tile.gt_mask[0], mask[top : top + 12, left : left + 16])
    assert all((tile.gt_mask == 255).all() for tile in tiles[4:])


def test_chosen_tiles_have_labels_and_show_most_of_each_class() -> None:
    grid = Tiling((8, 8), 0).grid((32, 32))
    mask = np.full((32, 32), 255, np.uint8)
    for tile in list(grid)[2:14]:
        mask[tile.top, tile.left] = 0
    mask[:8, 24:28], mask[16:24, 8:10] = 1, 2  # tiles 3 and 9
    mask[:2, 16:18] = 0  # tile 2
    every = list(range(2, 14))
    assert [tile.index for tile in chosen_tiles(grid, mask)] == every
    assert [tile.index for tile in chosen_tiles(grid, mask, 12)] == every
    assert [tile.index for tile in chosen_tiles(grid, mask, 3)] == [2, 3, 9]
    others = [index for index in every if index not in {2, 3, 9}]
    assert [tile.index for tile in chosen_tiles(grid, mask, 6)] == sorted([2, 3, 9, others[0], others[3], others[6]])


def test_no_more_tiles_are_chosen_than_asked_for_where_there_are_more_classes() -> None:
    grid = Tiling((8, 8), 0).grid((32, 32))
    mask = np.arange(32 * 32).reshape(32, 32) % 200
    assert len(chosen_tiles(grid, mask.astype(np.uint8), 5)) == 5


def test_few_pixels_stand_for_a_picture() -> None:
    planes = np.random.default_rng(0).random((2, 1300, 40), np.float32)
    assert np.array_equal(thinned(planes), planes[:, ::3])
    assert torch.equal(thinned(torch.from_numpy(planes)), torch.from_numpy(planes[:, ::3].copy()))
