# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Views of a labelled image: image and mask move together, keep their size, and light stays in range."""

import numpy as np
import pytest
from scipy import ndimage

from anomalib_aoissl.pixel_head.learning.views import Variation, drawn_light, symmetric_view, view, view_light, views_of

SIZES = [(16, 16), (32, 48), (48, 32), (33, 20), (20, 33), (7, 30)]
TURNED = (2, 3, 6, 7)  # views with an odd number of quarter turns


def image_of(size: tuple[int, int], planes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Return an image whose first plane says which class, 0 to 199, a pixel has."""
    random = np.random.default_rng(0)
    mask = random.integers(0, 200, size).astype(np.uint8)
    image = random.random((planes, *size), dtype=np.float32)
    image[0] = mask / np.float32(255)
    return image, mask


@pytest.mark.parametrize("planes", [1, 3, 4])
@pytest.mark.parametrize("size", SIZES)
def test_image_and_mask_move_together_and_keep_their_size(size: tuple[int, int], planes: int) -> None:
    image, mask = image_of(size, planes)
    for index in range(16):
        turned, labels = symmetric_view(image, mask, index)
        assert turned.shape == image.shape
        assert labels.shape == mask.shape
        assert labels.dtype == np.uint8
        seen = labels != 255
        assert seen.any()
        assert np.array_equal(np.rint(turned[0] * 255)[seen], labels[seen])


def test_the_first_view_is_the_image() -> None:
    image, mask = image_of((20, 33))
    turned, labels = symmetric_view(image, mask, 0)
    assert np.array_equal(turned, image)
    assert np.array_equal(labels, mask)


def test_eight_views_of_a_square_are_its_eight_symmetries() -> None:
    image, mask = image_of((9, 9))
    found = {symmetric_view(image, mask, index)[1].tobytes() for index in range(8)}
    flips = (mask, mask.T, mask[::-1], mask[:, ::-1], mask[::-1, ::-1], mask.T[::-1], mask.T[:, ::-1])
    expected = {flipped.tobytes() for flipped in (*flips, mask.T[::-1, ::-1])}
    assert found == expected
    assert symmetric_view(image, mask, 8)[1].tobytes() == mask.tobytes()


@pytest.mark.parametrize("size", SIZES)
def test_views_without_a_quarter_turn_show_every_pixel(size: tuple[int, int]) -> None:
    image, mask = image_of(size)
    for index in set(range(8)) - set(TURNED):
        _, labels = symmetric_view(image, mask, index)
        assert np.array_equal(np.sort(labels, axis=None), np.sort(mask, axis=None))


def test_what_a_turned_view_does_not_cover_is_ignored_and_shows_the_border_mirrored() -> None:
    image, mask = image_of((40, 24))
    for index in TURNED:
        turned, labels = symmetric_view(image, mask, index)
        assert (labels[:8] == 255).all()
        assert (labels[32:] == 255).all()
        middle = np.sort(labels[8:32], axis=None)  # turned, the middle 24 of 40 rows are the columns
        assert np.array_equal(middle, np.sort(mask[8:32], axis=None))
        assert np.array_equal(turned[:, :8], turned[:, 8:16][:, ::-1])
        assert np.array_equal(turned[:, 32:], turned[:, 24:32][:, ::-1])


def test_a_marked_pixel_is_found_at_its_label() -> None:
    image, mask = np.zeros((3, 32, 48), np.float32), np.zeros((32, 48), np.uint8)
    image[:, 13, 20], mask[13, 20] = 1, 5
    places = set()
    for index in range(8):
        turned, labels = symmetric_view(image, mask, index)
        (row,), (column,) = np.nonzero(labels == 5)
        assert (turned[:, row, column] == 1).all()
        places.add((int(row), int(column)))
    assert len(places) == 8


def test_each_second_view_is_under_another_light() -> None:
    image, mask = image_of((32, 48))
    for index in range(8):
        seen, labels = view(image, mask, index, np.random.default_rng(0))
        plain, expected = symmetric_view(image, mask, index)
        assert np.array_equal(seen, plain) == (index % 2 == 0)
        assert np.array_equal(labels, expected)


@pytest.mark.parametrize("planes", [1, 3, 4])
def test_light_stays_in_range_and_keeps_shape_and_type(planes: int) -> None:
    image, _ = image_of((18, 30), planes)
    image[:, :4], image[:, 4:8] = 0, 1
    before = image.copy()
    for seed in range(30):
        lit = drawn_light(image, np.random.default_rng(seed), blurred=seed % 2 == 1)
        assert lit.shape == image.shape
        assert lit.dtype == np.float32
        assert 0 <= lit.min() <= lit.max() <= 1
        assert np.isfinite(lit).all()
    assert np.array_equal(image, before)


def test_light_is_that_of_its_seed() -> None:
    image, _ = image_of((18, 30))
    lights = [drawn_light(image, np.random.default_rng(seed), blurred=seed % 2 == 1) for seed in (1, 1, 2)]
    assert np.array_equal(lights[0], lights[1])
    assert not np.allclose(lights[0], lights[2], atol=0.01)


def test_lights_are_darker_and_brighter_and_of_another_colour() -> None:
    image = np.full((3, 8, 8), 0.4, np.float32)
    means = np.array(
        [drawn_light(image, np.random.default_rng(seed), blurred=seed % 2 == 1).mean(axis=(1, 2)) for seed in range(60)]
    )
    assert means.mean(axis=1).min() < 0.25
    assert means.mean(axis=1).max() > 0.6
    assert (np.ptp(means, axis=1) / means.mean(axis=1)).max() > 0.2


def test_light_leaves_brighter_pixels_brighter() -> None:
    image = np.tile(np.linspace(0.1, 0.5, 9, dtype=np.float32)[None, :, None], (1, 1, 40))
    for seed in range(20):
        rows = drawn_light(image, np.random.default_rng(seed), blurred=seed % 2 == 1).mean(axis=(0, 2))
        assert np.corrcoef(rows, image[0, :, 0])[0, 1] > 0.8


def test_fewer_images_are_seen_in_more_views() -> None:
    numbers = (1, 2, 5, 6, 8, 9, 24, 25, 500)
    assert [len(views_of(0, number)) for number in numbers] == [8, 6, 6, 4, 4, 4, 4, 1, 1]
    assert [views_of(order, 20) for order in range(2)] == [[0, 1, 2, 3]] * 2
    assert [views_of(order, 30) for order in range(9)] == [[0], [1], [2], [3], [4], [5], [6], [7], [0]]
    assert views_of(3, 5) == [0, 1, 2, 3, 4, 5]


def test_unturned_views_lie_as_their_image_does() -> None:
    image, mask = image_of((32, 48))
    for index in range(8):
        seen, labels = view(image, mask, index, np.random.default_rng(index), Variation(turned=False))
        assert np.array_equal(labels, mask)
        assert np.array_equal(seen, image) == (index % 2 == 0)


def test_unlit_views_are_blurred_or_noisy_alone() -> None:
    image, _ = image_of((32, 48))
    image = 0.25 + 0.5 * image
    unlit = Variation(lit=False)
    blurred = drawn_light(image, np.random.default_rng(3), True, unlit)
    sigma = np.random.default_rng(3).uniform(0.5, 1.5)
    for plane, found in zip(image, blurred, strict=True):
        np.testing.assert_allclose(found, ndimage.gaussian_filter(plane, sigma, mode="mirror"), atol=0.02)
    noise = drawn_light(image, np.random.default_rng(4), False, unlit) - image
    assert abs(noise.mean()) < 0.002
    assert 0 < noise.std() < 0.04
    assert view_light(image, 1, np.random.default_rng(0), unlit) is image
