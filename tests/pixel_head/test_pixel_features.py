# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Features of pixels: the place of tokens in the image against grid_sample."""

import numpy as np
import pytest
import torch
from pixel_oracles import bilinear
from torch.nn import functional

from anomalib_aoissl.pixel_head.features import enlarged, feature_maps
from anomalib_aoissl.pixel_head.filters import scale_space


@pytest.mark.parametrize(
    ("size", "grid"),
    [((32, 48), (4, 6)), ((42, 56), (3, 4)), ((28, 70), (2, 5)), ((41, 30), (3, 2)), ((16, 16), (1, 1))],
)
@pytest.mark.parametrize("planes", [1, 3, 4])
def test_tokens_are_bilinear_at_the_coarse_pixels(size: tuple[int, int], grid: tuple[int, int], planes: int) -> None:
    images, tokens = torch.rand(2, planes, *size), torch.rand(2, 5, *grid)
    features = feature_maps(images, tokens)
    fine, coarse = scale_space(images)
    assert torch.equal(features.fine, fine)
    assert torch.equal(features.coarse[:, : coarse.shape[1]], coarse)
    height, width = coarse.shape[-2:]
    assert (height, width) == (-(-size[0] // 4), -(-size[1] // 4))
    # Centres of the coarse pixels, in parts of the image from -1 to 1.
    y, x = (torch.arange(count) * 4 + 2.0 for count in (height, width))
    places = torch.stack(torch.meshgrid(2 * x / size[1] - 1, 2 * y / size[0] - 1, indexing="xy"), dim=-1)
    places = places.expand(2, -1, -1, -1)
    expected = functional.grid_sample(tokens, places, mode="bilinear", padding_mode="border", align_corners=False)
    assert torch.allclose(features.coarse[:, coarse.shape[1] :], expected, atol=1e-5)


def test_tokens_of_four_pixels_are_taken_as_they_are() -> None:
    images, tokens = torch.rand(2, 3, 24, 40), torch.rand(2, 5, 6, 10)
    features = feature_maps(images, tokens)
    assert torch.equal(features.coarse[:, -5:], tokens)


def test_a_single_token_is_brightest_where_it_lies() -> None:
    tokens = torch.zeros(1, 1, 4, 6)
    tokens[0, 0, 1, 4] = 1
    features = feature_maps(torch.rand(1, 1, 32, 48), tokens)
    place = features.coarse[0, -1].argmax().item()
    assert place // 12 in (2, 3)  # 8 px a token are two coarse pixels
    assert place % 12 in (8, 9)


@pytest.mark.parametrize("size", [(32, 48), (42, 56), (41, 30), (3, 1)])
def test_coarse_maps_are_enlarged_bilinearly(size: tuple[int, int]) -> None:
    coarse = torch.rand(2, 3, -(-size[0] // 4), -(-size[1] // 4))
    found = enlarged(coarse, size)
    assert found.shape == (2, 3, *size)
    for image, expected in zip(found, coarse, strict=True):
        assert np.allclose(image.numpy(), bilinear(expected.numpy(), *size), atol=1e-5)
