# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Blended tiles are the whole picture where a model does not care for place, without a step, in flat memory."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from anomalib_aoissl import Tiling
from anomalib_aoissl.deployment.tiles.blending import RunTile, StripReader, blended_strips
from anomalib_aoissl.deployment.tiles.light import light_of


def whole(planes: np.ndarray, tiling: Tiling, run: RunTile, workers: int = 1) -> np.ndarray:
    """Return the blended maps of a picture, its strips put together."""
    grid = tiling.grid(planes.shape[-2:])
    strips = [(first, maps.copy()) for first, maps in blended_strips(planes, grid, run, workers=workers)]
    firsts = [first for first, _ in strips]
    heights = [maps.shape[1] for _, maps in strips]
    assert firsts == [0, *np.cumsum(heights)[:-1]]
    return np.concatenate([maps for _, maps in strips], axis=1)


def softmax_of_pixels(tiles: np.ndarray) -> np.ndarray:
    """Return class probabilities of each pixel by itself."""
    scores = np.stack([tiles.sum(axis=1), tiles[:, 0] - 1, 2 * tiles[:, 1]], axis=1)
    powers = np.exp(scores)
    return powers / powers.sum(axis=1, keepdims=True)


@settings(deadline=None, max_examples=30)
@given(
    size=some.tuples(some.integers(1, 90), some.integers(1, 90)),
    tile=some.tuples(some.integers(2, 40), some.integers(2, 40)),
    overlap=some.sampled_from([0.0, 0.1, 0.5, 0.8]),
    workers=some.sampled_from([1, 3]),
)
def test_a_model_of_single_pixels_gives_what_it_gives_of_the_whole(
    size: tuple[int, int], tile: tuple[int, int], overlap: float, workers: int
) -> None:
    planes = np.random.default_rng(0).random((2, *size), np.float32)
    expected = softmax_of_pixels(planes[np.newaxis])[0]
    blended = whole(planes, Tiling(tile, overlap), softmax_of_pixels, workers=workers)
    np.testing.assert_allclose(blended, expected, atol=1e-5)


def test_no_step_stays_at_a_border() -> None:
    """Tiles that disagree, as 0 and 1, make a slope: the largest rise is that of a squared cosine over the overlap."""
    planes, tiling = np.zeros((1, 64, 200), np.float32), Tiling((64, 64), 32)
    numbers = iter(range(100))

    def disagree(tiles: np.ndarray) -> np.ndarray:
        return np.stack([np.full((1, 64, 64), next(numbers) % 2, np.float32) for _ in tiles])

    blended = whole(planes, tiling, disagree)[0]
    assert blended.min() < 0.01
    assert blended.max() > 0.99
    assert np.abs(np.diff(blended, axis=1)).max() < np.pi / 2 / 28  # at least 28 px are shared
    assert np.abs(np.diff(blended, axis=0)).max() < 1e-6
    hard = whole(planes[..., :192], Tiling((64, 64), 0), disagree)[0]
    assert np.abs(np.diff(hard, axis=1)).max() == 1  # the test can fail


def test_memory_does_not_grow_with_the_height() -> None:
    def peak(height: int) -> int:
        planes = np.zeros((1, height, 512), np.float32)
        tracemalloc.start()
        for _ in blended_strips(planes, Tiling((64, 64), 16).grid(planes.shape[1:]), lambda tiles: tiles, workers=2):
            pass
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    assert peak(2048) < 4e6  # a map of the picture has 4.2e6 bytes
    assert peak(8192) < 4e6  # and here 16.8e6


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_a_tile_is_raised(workers: int) -> None:
    def broken(tiles: np.ndarray) -> np.ndarray:
        msg = "broken"
        raise RuntimeError(msg)

    grid = Tiling((8, 8), 0).grid((64, 64))
    with pytest.raises(RuntimeError, match="broken"):
        list(blended_strips(np.zeros((1, 64, 64), np.float32), grid, broken, workers=workers))


def test_the_score_is_the_largest_novelty_or_the_percentile_of_uncertainty() -> None:
    random = np.random.default_rng(0)
    probabilities = random.dirichlet([0.4] * 3, (80, 90)).transpose(2, 0, 1).astype(np.float32)
    novelty = random.random((1, 80, 90)).astype(np.float32)
    reader = StripReader(novelty=True)
    for first in range(0, 80, 16):
        maps = np.concatenate([probabilities, novelty])[:, first : first + 16]
        classes, values, uncertainty = reader.read(maps)
        assert np.array_equal(classes, probabilities[:, first : first + 16].argmax(axis=0))
        assert np.array_equal(values, novelty[0, first : first + 16])
        share = probabilities[:, first : first + 16].max(axis=0)
        np.testing.assert_allclose(uncertainty, 1 - share * (1 - values**4), atol=1e-6)
    assert reader.score == novelty.max()
    segmenter = StripReader(novelty=False)
    for first in range(0, 80, 16):
        segmenter.read(probabilities[:, first : first + 16])
    assert segmenter.score == pytest.approx(np.quantile(1 - probabilities.max(axis=0), 0.99), abs=2e-3)
    with pytest.raises(FloatingPointError):
        segmenter.read(np.full((3, 2, 2), np.nan, np.float32))


def test_the_light_of_a_picture_is_that_of_training() -> None:
    torch = pytest.importorskip("torch")
    from anomalib_aoissl.models.preprocessing import JOINT_LIGHT, LIGHT, standardize_light

    planes = np.random.default_rng(3).random((3, 50, 70), np.float32) ** np.float32([[[1]], [[2]], [[4]]])
    logarithms = np.log(planes.astype(np.float64) + 0.1)
    for joint, axes in ((False, (1, 2)), (True, (0, 1, 2))):
        mean, deviation = light_of(planes, joint=joint)
        assert mean.shape == deviation.shape == (1, 1 if joint else 3, 1, 1)
        np.testing.assert_allclose(mean.squeeze(), logarithms.mean(axis=axes), atol=1e-5)
        np.testing.assert_allclose(deviation.squeeze(), logarithms.std(axis=axes) + 1e-3, atol=1e-5)
        whole = torch.from_numpy(planes)[None]
        light = JOINT_LIGHT if joint else LIGHT
        expected = standardize_light(whole, light=light)[..., 5:20, 10:40]
        torch.testing.assert_close(standardize_light(whole[..., 5:20, 10:40], whole, light=light), expected)
