# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The peer of pixel-classification tools: a random forest on scale-space filters of each plane."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from skimage.feature import hessian_matrix, hessian_matrix_eigvals, structure_tensor, structure_tensor_eigenvalues
from sklearn.ensemble import RandomForestClassifier

from ..sets import RunData
from .ours import Predictor

__all__ = ["forest", "scale_space"]

_SIGMAS = (0.7, 1.0, 1.6, 3.5, 5.0, 10.0)
_PIXELS = 20_000  # of each class
_TREES, _LEAF = 100, 2


def forest(data: RunData, spec: Mapping[str, Any], encoder: Mapping[str, Any]) -> Predictor:
    """Fit a forest to the same number of pixels of each class."""
    del encoder
    generator = np.random.default_rng(spec["seed"])
    features, labels = [], []
    share = _PIXELS // len(data.labelled.images)
    for image, mask in zip(data.labelled.images, data.labelled.masks, strict=True):
        maps, classes = scale_space(image.numpy()), mask.numpy().reshape(-1)
        for index in range(len(data.class_names)):
            places = np.flatnonzero(classes == index)
            chosen = generator.permutation(places)[:share]
            features.append(maps[chosen])
            labels.append(classes[chosen])
    trees = RandomForestClassifier(_TREES, min_samples_leaf=_LEAF, n_jobs=1, random_state=spec["seed"])
    trees.fit(np.concatenate(features), np.concatenate(labels))

    def predict(image: torch.Tensor) -> np.ndarray:
        best: np.ndarray = trees.predict(scale_space(image.numpy())).reshape(image.shape[-2:]).astype(np.uint8)
        return best

    return predict


def scale_space(image: np.ndarray) -> np.ndarray:
    """Return the filters of each pixel of planes ``[P, H, W]``, ``[H * W, P * 6 * 8]`` float32."""
    maps = [found for plane in image for sigma in _SIGMAS for found in _filters(plane, sigma)]
    return np.stack(maps, axis=-1).reshape(-1, len(maps)).astype(np.float32)


def _filters(plane: np.ndarray, sigma: float) -> Iterator[np.ndarray]:
    """Give smooth plane, gradient, Laplacian, difference of Gaussians, eigenvalues of Hessian and structure tensor."""
    smooth = ndimage.gaussian_filter(plane, sigma)
    yield smooth
    yield ndimage.gaussian_gradient_magnitude(plane, sigma)
    yield ndimage.gaussian_laplace(plane, sigma)
    yield smooth - ndimage.gaussian_filter(plane, 0.66 * sigma)
    yield from hessian_matrix_eigvals(hessian_matrix(plane, sigma, use_gaussian_derivatives=False))
    yield from structure_tensor_eigenvalues(structure_tensor(plane, sigma))
