# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Context maps: against Gaussian means over all blocks of an image, in a loop, and against scipy."""

import numpy as np
import pytest
import torch
from pixel_oracles import block_means

from anomalib_aoissl.pixel_head.autocontext import context_maps

RADII = (2.0, 5.0, 10.0, 20.0, 40.0)
SIZES = [(32, 48), (42, 56), (5, 3)]


def gaussian_mean(plane: np.ndarray, sigma: float) -> np.ndarray:
    """Return each pixel's mean of a whole plane, weighted by a Gaussian of the distance."""
    rows, columns = np.indices(plane.shape)
    result = np.empty(plane.shape)
    for row, column in np.ndindex(plane.shape):
        weights = np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * sigma**2))
        result[row, column] = (weights * plane).sum() / weights.sum()
    return result


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("classes", [1, 3])
def test_context_is_a_gaussian_mean_at_each_radius(size: tuple[int, int], classes: int) -> None:
    probabilities = torch.rand(2, classes, *size)
    found = context_maps(probabilities).numpy()
    assert found.shape == (2, 5 * classes, -(-size[0] // 4), -(-size[1] // 4))
    for image in range(2):
        small = [block_means(plane) for plane in probabilities[image].numpy()]
        expected = [gaussian_mean(plane, radius / 4) for radius in RADII for plane in small]
        assert np.allclose(found[image], expected, atol=1e-5)


def test_context_is_that_of_scipy() -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    probabilities = torch.rand(1, 2, 40, 60)
    found = context_maps(probabilities)[0].numpy()
    for index, (radius, plane) in enumerate((radius, plane) for radius in RADII for plane in probabilities[0].numpy()):
        small = block_means(plane)
        options = {"sigma": radius / 4, "mode": "constant", "radius": 15}
        expected = ndimage.gaussian_filter(small, **options) / ndimage.gaussian_filter(np.ones_like(small), **options)
        assert np.allclose(found[index], expected, atol=1e-5)


def test_probabilities_that_are_the_same_everywhere_stay_so() -> None:
    probabilities = torch.tensor([0.7, 0.3])[None, :, None, None].expand(1, 2, 42, 56)
    found = context_maps(probabilities)
    assert torch.allclose(found, torch.tensor([0.7, 0.3] * 5)[None, :, None, None].expand_as(found), atol=1e-6)
