# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Drawing pixels of masks, and reading maps at them: against numpy's own interpolation and explicit loops."""

import numpy as np
import pytest
import torch
from pixel_oracles import bilinear
from torch.nn import functional

from anomalib_aoissl.pixel_head.points import at_points, blur, context_values, draw_points, pixel_values


def mask_of(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Return a mask of classes 0, 1, 2 and 7, the last one only one pixel, with ignored ones."""
    random = np.random.default_rng(seed)
    mask = random.choice(np.array([0, 1, 2, 255], np.uint8), (height, width), p=[0.6, 0.2, 0.05, 0.15])
    mask[height // 2, width // 3] = 7
    return mask


def every_pixel(height: int, width: int) -> np.ndarray:
    return np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij"), axis=-1).reshape(-1, 2)


@pytest.mark.parametrize("size", [(32, 48), (42, 56), (5, 3)])
def test_drawn_pixels_are_labelled_and_of_each_class(size: tuple[int, int]) -> None:
    mask = mask_of(*size)
    points, weights = draw_points(mask, 300, np.random.default_rng(0))
    drawn = mask[points[:, 0], points[:, 1]]
    assert 255 not in drawn
    assert set(drawn) == set(mask.reshape(-1)) - {255}
    assert len(points) == len(weights) <= 300


def test_weights_of_a_class_sum_to_its_pixels() -> None:
    mask = mask_of(42, 56)
    points, weights = draw_points(mask, 500, np.random.default_rng(0))
    drawn = mask[points[:, 0], points[:, 1]]
    for index in np.unique(drawn):
        assert weights[drawn == index].sum() == pytest.approx((mask == index).sum(), rel=1e-4)


def test_shares_go_with_the_root_of_the_frequency() -> None:
    mask = np.zeros((40, 50), np.uint8)
    mask.reshape(-1)[:20] = 1  # 20 and 1980 of 2000 pixels: roots of 4.47 and 44.50
    points, _ = draw_points(mask, 1000, np.random.default_rng(0))
    counts = np.bincount(mask[points[:, 0], points[:, 1]])
    assert counts.tolist() == [int(1000 * 44.4972 / 48.9693), int(1000 * 4.4721 / 48.9693)]


def test_a_class_of_one_pixel_is_drawn_even_among_few() -> None:
    mask = np.zeros((40, 50), np.uint8)
    mask[7, 9] = 3
    points, weights = draw_points(mask, 5, np.random.default_rng(0))
    assert mask[points[:, 0], points[:, 1]].tolist().count(3) == 1
    assert weights[-1] == 1


def test_same_seed_draws_the_same_pixels_and_another_seed_others() -> None:
    mask = mask_of(32, 48)
    (first, _), (again, _), (other, _) = (draw_points(mask, 200, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_drawn_pixels_lie_all_over_a_class() -> None:
    mask = np.zeros((4, 6), np.uint8)
    points, _ = draw_points(mask, 2000, np.random.default_rng(0))
    counts = np.zeros(mask.shape)
    np.add.at(counts, (points[:, 0], points[:, 1]), 1)
    assert counts.min() > 50  # 83 of each are expected
    assert counts.max() < 125


def test_nothing_is_drawn_where_nothing_is_labelled() -> None:
    points, weights = draw_points(np.full((8, 9), 255, np.uint8), 100, np.random.default_rng(0))
    assert points.shape == (0, 2)
    assert weights.shape == (0,)


@pytest.mark.parametrize("size", [(32, 48), (42, 56), (41, 55), (3, 4), (4, 9)])
def test_coarse_maps_are_bilinear_at_pixels(size: tuple[int, int]) -> None:
    height, width = size
    coarse = np.random.default_rng(0).normal(size=(3, -(-height // 4), -(-width // 4))).astype(np.float32)
    expected = bilinear(coarse, height, width).reshape(3, -1).T
    assert np.allclose(at_points(coarse, every_pixel(height, width)), expected, atol=1e-5)


def test_coarse_maps_at_pixels_are_what_grid_sample_gives() -> None:
    coarse = np.random.default_rng(0).normal(size=(2, 11, 14)).astype(np.float32)
    points = np.random.default_rng(1).integers(0, (44, 56), (200, 2))
    places = torch.from_numpy((points[:, ::-1] + 0.5) / (56, 44) * 2 - 1).float()[None, None]  # (x, y) in -1 to 1
    sampled = functional.grid_sample(torch.from_numpy(coarse)[None], places, padding_mode="border", align_corners=False)
    assert np.allclose(at_points(coarse, points), sampled[0, :, 0].T.numpy(), atol=1e-5)


def test_values_are_of_fine_then_coarse_maps() -> None:
    random = np.random.default_rng(0)
    fine, coarse = random.normal(size=(2, 10, 13)), random.normal(size=(3, 3, 4)).astype(np.float32)
    points = np.array([[0, 0], [9, 12], [4, 7], [4, 7]])
    values = pixel_values(fine, coarse, points)
    large = bilinear(coarse, 10, 13)
    for (row, column), found in zip(points, values, strict=True):
        assert np.allclose(found, [*fine[:, row, column], *large[:, row, column]], atol=1e-5)


def test_probabilities_are_stored_four_to_a_whole() -> None:
    probabilities = np.array([[[0.0, 1.0]], [[1.0, 0.0]]], np.float32)  # [2, 1, 2]
    blurred = np.full((4, 1, 1), 0.5, np.float32)
    stored = context_values(probabilities, blurred, np.array([[0, 0], [0, 1]]))
    whole, half = round(4 / (6 / 127)), round(2 / (6 / 127))
    assert stored.dtype == np.int8
    assert stored.tolist() == [[0, whole, *[half] * 4], [whole, 0, *[half] * 4]]


@pytest.mark.parametrize(("length", "sigma"), [(1, 0.5), (7, 0.5), (12, 10.0)])
def test_blur_is_a_gaussian_mean_of_what_there_is(length: int, sigma: float) -> None:
    line = np.random.default_rng(0).normal(size=length)
    expected = [
        sum(np.exp(-((i - j) ** 2) / (2 * sigma**2)) * line[j] for j in range(length))
        / sum(np.exp(-((i - j) ** 2) / (2 * sigma**2)) for j in range(length))
        for i in range(length)
    ]
    assert np.allclose(blur(length, sigma) @ line, expected, atol=1e-6)
