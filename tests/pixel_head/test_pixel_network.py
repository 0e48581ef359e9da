# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The network over whole images: against dense layers at each pixel of maps that were enlarged first."""

import numpy as np
import pytest
import torch
from pixel_oracles import dense, random_network
from torch.nn import functional

from anomalib_aoissl.pixel_head.features import FeatureMaps
from anomalib_aoissl.pixel_head.learning.fitting import scores
from anomalib_aoissl.pixel_head.network import class_scores
from anomalib_aoissl.pixel_head.points import pixel_values


def maps_of(size: tuple[int, int], fine: int, coarse: int) -> FeatureMaps:
    small = -(-size[0] // 4), -(-size[1] // 4)
    return FeatureMaps(torch.randn(2, fine, *size), torch.randn(2, coarse, *small))


@pytest.mark.parametrize("size", [(32, 48), (42, 56), (13, 7)])
@pytest.mark.parametrize("hidden", [(), (6,), (9, 5)])
def test_scores_are_those_of_dense_layers_on_enlarged_maps(size: tuple[int, int], hidden: tuple[int, ...]) -> None:
    layers, features = random_network((7, *hidden, 3)), maps_of(size, 3, 4)
    found = class_scores([torch.from_numpy(layer) for layer in layers], features)
    assert found.shape == (2, 3, *size)
    large = functional.interpolate(features.coarse, scale_factor=4, mode="bilinear", align_corners=False)
    inputs = torch.cat([features.fine, large[:, :, : size[0], : size[1]]], dim=1)
    expected = dense(layers, inputs.permute(0, 2, 3, 1).reshape(-1, 7))
    assert torch.allclose(found.permute(0, 2, 3, 1).reshape(-1, 3).double(), expected, atol=1e-5)


def test_whole_images_get_the_scores_that_their_pixels_are_fitted_with() -> None:
    layers, features = random_network((7, 6, 5, 4)), maps_of((42, 56), 3, 4)
    found = class_scores([torch.from_numpy(layer) for layer in layers], features)[1]
    points = np.random.default_rng(0).integers(0, (42, 56), (100, 2))
    values = pixel_values(features.fine[1].numpy(), features.coarse[1].numpy(), points)
    assert np.allclose(found[:, points[:, 0], points[:, 1]].T, scores(layers, values), atol=1e-4)
