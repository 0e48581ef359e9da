# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Scale-space filters: against scipy, against gradients and eigenvalues in numpy, and where the answer is known."""

import numpy as np
import pytest
import torch
from pixel_oracles import block_means

from anomalib_aoissl.pixel_head.filters import filter_counts, scale_space, smooth

TENSOR_FROM = 4  # maps of a width before those of the structure tensor
FINE = (0.7, 1.0, 1.6)
SIZES = [(32, 48), (42, 56), (9, 13)]


def blurred(plane: np.ndarray, sigma: float) -> np.ndarray:
    """Return a plane after a Gaussian that is cut at three sigma, by numpy's convolution of its lines."""
    reach = max(1, round(3 * sigma))
    kernel = np.array([np.exp(-(place**2) / (2 * sigma**2)) for place in range(-reach, reach + 1)])
    for axis in (0, 1):
        pads = [(0, 0), (0, 0)]
        pads[axis] = (reach, reach)
        padded = np.pad(plane, pads, mode="edge")
        plane = np.apply_along_axis(lambda line: np.convolve(line, kernel / kernel.sum(), mode="valid"), axis, padded)
    return plane


def slope(plane: np.ndarray, axis: int) -> np.ndarray:
    return np.gradient(np.pad(plane, 1, mode="edge"), axis=axis)[1:-1, 1:-1]


def eigenvalues(xx: np.ndarray, xy: np.ndarray, yy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the larger and the smaller ones of symmetric matrices by LAPACK."""
    values = np.linalg.eigvalsh(np.stack([np.stack([xx, xy], axis=-1), np.stack([xy, yy], axis=-1)], axis=-2))
    return values[..., 1], values[..., 0]


def answers(plane: np.ndarray, sigma: float, *, tensor: bool) -> list[np.ndarray]:
    """Return the maps of one width, px of the plane."""
    smoothed = blurred(plane, sigma)
    x, y = slope(smoothed, 1), slope(smoothed, 0)
    hessian = eigenvalues(slope(x, 1), slope(x, 0), slope(y, 0))
    maps = [smoothed, sigma * np.hypot(x, y), *(sigma**2 * value for value in hessian)]
    if tensor:
        roots = eigenvalues(blurred(x * x, sigma), blurred(x * y, sigma), blurred(y * y, sigma))
        maps += [sigma * np.sqrt(np.maximum(value, 0)) for value in roots]
    return maps


def check(found: np.ndarray, expected: list[np.ndarray]) -> None:
    """Compare the maps of one width; of those of the structure tensor, roots of small numbers, the squares."""
    assert len(found) == len(expected)
    assert np.allclose(found[:TENSOR_FROM], expected[:TENSOR_FROM], atol=1e-5)
    for root, wanted in zip(found[TENSOR_FROM:], expected[TENSOR_FROM:], strict=True):
        assert np.allclose(root, wanted, atol=3e-3)
        assert np.allclose(root**2, wanted**2, atol=5e-6)


@pytest.mark.parametrize("planes", [1, 3, 4])
@pytest.mark.parametrize("size", SIZES)
def test_filters_are_those_of_numpy(size: tuple[int, int], planes: int) -> None:
    images = torch.rand(2, planes, *size)
    fine, coarse = scale_space(images)
    assert fine.shape == (2, 19 * planes, *size)
    assert coarse.shape == (2, 20 * planes, -(-size[0] // 4), -(-size[1] // 4))
    for index, plane in np.ndindex(2, planes):
        pixels = images[index, plane].double().numpy()
        found, wide = fine[index, plane::planes].numpy(), coarse[index, plane::planes].numpy()
        assert np.allclose(found[0], pixels)
        for number, sigma in enumerate(FINE):
            check(found[1 + 6 * number : 7 + 6 * number], answers(pixels, sigma, tensor=True))
        small = block_means(pixels)
        check(wide[:6], answers(small, 3.5 / 4, tensor=True))
        check(wide[6:12], answers(small, 5 / 4, tensor=True))
        check(wide[12:16], answers(small, 10 / 4, tensor=False))
        check(wide[16:], answers(small, 20 / 4, tensor=False))


@pytest.mark.parametrize("planes", [1, 3, 4])
def test_counts_are_those_of_the_maps(planes: int) -> None:
    fine, coarse = scale_space(torch.rand(1, planes, 8, 8))
    assert filter_counts(planes) == (fine.shape[1], coarse.shape[1])


@pytest.mark.parametrize("sigma", [0.2, 0.7, 1.6, 5.0])
@pytest.mark.parametrize("size", SIZES)
def test_gaussian_is_that_of_scipy(size: tuple[int, int], sigma: float) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    maps = torch.rand(2, 3, *size, dtype=torch.float64)
    found = smooth(maps, sigma)
    reach = max(1, round(3 * sigma))
    for index in np.ndindex(2, 3):
        expected = ndimage.gaussian_filter(maps[index].numpy(), sigma, mode="nearest", radius=reach)
        assert np.allclose(found[index].numpy(), expected, atol=1e-6)


def test_eigenvalues_are_those_of_scikit_image() -> None:
    feature, ndimage = pytest.importorskip("skimage.feature"), pytest.importorskip("scipy.ndimage")
    image = torch.rand(1, 1, 40, 50)
    fine, _ = scale_space(image)
    smoothed = ndimage.gaussian_filter(image[0, 0].double().numpy(), 1.6, mode="nearest", radius=5)
    rows, columns = np.gradient(smoothed)
    (rr, rc), cc = np.gradient(rows), np.gradient(columns)[1]
    expected = feature.hessian_matrix_eigvals([rr, rc, cc]) * 1.6**2
    start = 1 + 2 * 6
    assert np.allclose(fine[0, start].numpy(), smoothed, atol=1e-5)
    found = fine[0, start + 2 : start + 4].numpy()
    assert np.allclose(found[:, 3:-3, 3:-3], expected[:, 3:-3, 3:-3], atol=1e-5)  # np.gradient is one-sided outside


def test_a_ramp_has_the_gradient_of_its_slope() -> None:
    x, y = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="xy")
    fine, coarse = scale_space((0.003 * x + 0.004 * y)[None, None])
    for index, sigma in enumerate(FINE):
        _, gradient, large, small, along, beside = fine[0, 1 + 6 * index : 7 + 6 * index, 32, 32].tolist()
        assert gradient == pytest.approx(0.005 * sigma, rel=1e-3)
        assert along == pytest.approx(0.005 * sigma, rel=1e-3)
        assert max(abs(large), abs(small), beside) < 1e-4
    # Coarse filters measure in their own pixels, which makes the same of the same slope.
    assert coarse[0, 1, 8, 8].item() == pytest.approx(0.005 * 3.5, rel=1e-3)


def test_a_valley_has_one_curvature_and_a_bowl_two() -> None:
    x, y = torch.meshgrid(torch.arange(64.0) - 32, torch.arange(64.0) - 32, indexing="xy")
    valley, bowl = 0.01 * x**2, 0.01 * x**2 + 0.02 * y**2
    fine, _ = scale_space(torch.stack([valley, bowl, -valley])[:, None])
    for index, sigma in enumerate(FINE):
        large, small = fine[:, 3 + 6 * index, 32, 32].tolist(), fine[:, 4 + 6 * index, 32, 32].tolist()
        assert np.allclose(large, np.array([0.02, 0.04, 0]) * sigma**2, atol=1e-3)
        assert np.allclose(small, np.array([0, 0.02, -0.02]) * sigma**2, atol=1e-3)


def test_a_flat_image_has_only_its_level_and_a_finite_slope() -> None:
    image = torch.full((1, 3, 10, 14), 0.6, requires_grad=True)
    fine, coarse = scale_space(image)
    levels = {0, 1, 2, *(3 + 18 * index + plane for index in range(3) for plane in range(3))}
    for index, answer in enumerate(fine[0].detach()):
        assert torch.allclose(answer, torch.full_like(answer, 0.6 if index in levels else 0.0), atol=2e-3)
    (fine.sum() + coarse.sum()).backward()
    assert torch.isfinite(image.grad).all()


def test_filters_turn_with_the_image() -> None:
    image = torch.rand(1, 2, 16, 24)
    for found, turned in zip(scale_space(image), scale_space(image.transpose(2, 3)), strict=True):
        assert torch.allclose(found, turned.transpose(2, 3), atol=1e-5)
