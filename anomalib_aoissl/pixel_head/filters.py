# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Scale-space filters of an image: what a pixel and its surroundings of 1 to 60 px look like, without any learning."""

from __future__ import annotations

import math

import torch
from torch.compiler import is_exporting
from torch.nn import functional

from .points import STRIDE

FINE_SIGMAS: tuple[float, ...] = (0.7, 1.0, 1.6)
"""Widths of the filters at the image's resolution, px."""

COARSE_SIGMAS: tuple[float, ...] = (3.5, 5.0, 10.0, 20.0)
"""Widths of the filters at a quarter of the resolution, px of the image."""

_WIDEST_TENSOR = 5.0  # px; the structure tensor of wider filters says what the Hessian says
_EPS = 1e-14  # under a root, whose slope is infinite at 0


def scale_space(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the filters' answers ``[B, Ff, H, W]``, and ``[B, Fc, ceil(H / 4), ceil(W / 4)]`` of the wide filters.

    For each plane and width s: the Gaussian, s times its gradient's magnitude, s^2 times the eigenvalues of its Hessian
    and, up to 5 px, s times the roots of those of the structure tensor [0]. The fine maps begin with the planes
    themselves. At the border its pixels are repeated.

    [0]: Lindeberg, Feature Detection with Automatic Scale Selection, 1998, 10.1023/A:1008045108935.

    Args:
        images: ``[B, C, H, W]``.
    """
    fine = [images, *(answer for sigma in FINE_SIGMAS for answer in _answers(images, sigma, sigma))]
    small = quartered(images)
    coarse = [answer for sigma in COARSE_SIGMAS for answer in _answers(small, sigma / STRIDE, sigma)]
    return torch.cat(fine, dim=1), torch.cat(coarse, dim=1)


def filter_counts(planes: int) -> tuple[int, int]:
    """Return how many maps `scale_space` gives of so many planes, fine and coarse."""
    fine, coarse = (
        sum(6 if sigma <= _WIDEST_TENSOR else 4 for sigma in group) for group in (FINE_SIGMAS, COARSE_SIGMAS)
    )
    return planes * (1 + fine), planes * coarse


def smooth(maps: torch.Tensor, sigma: float) -> torch.Tensor:
    """Return maps ``[B, C, H, W]`` after a Gaussian of width sigma, px, cut at three sigma."""
    reach = max(1, round(3 * sigma))
    weights = [math.exp(-0.5 * (place / sigma) ** 2) for place in range(-reach, reach + 1)]
    total = sum(weights)
    kernel = [weight / total for weight in weights]
    maps = _convolved(functional.pad(maps, (reach, reach, 0, 0), mode="replicate"), [kernel])
    return _convolved(functional.pad(maps, (0, 0, reach, reach), mode="replicate"), [[value] for value in kernel])


def _answers(maps: torch.Tensor, width: float, scale: float) -> list[torch.Tensor]:
    """Return the answers of the filters of one width, px of the maps; ``scale`` is that width in px of the image."""
    blurred = smooth(maps, width)
    across, down = _across(blurred, width), _down(blurred, width)
    gradient = (across * across + down * down + _EPS).sqrt()
    second = _across(across, width / 2), _down(across, width), _down(down, width / 2)
    answers = [blurred, gradient, *_eigenvalues(*second)]
    if scale <= _WIDEST_TENSOR:
        twice = smooth(torch.cat([across * across, across * down * 2, down * down], dim=1), width).chunk(3, dim=1)
        answers += [(functional.relu(value) / 2 + _EPS).sqrt() for value in _eigenvalues(*twice)]
    return answers


def _across(maps: torch.Tensor, width: float) -> torch.Tensor:
    """Return the central differences across times a width, ``[B, C, H, W]``."""
    padded = functional.pad(maps, (1, 1, 0, 0), mode="replicate")
    if is_exporting():
        return _convolved(padded, [[-width / 2, 0.0, width / 2]])  # one operation of the graph in place of four
    return (padded[..., 2:] - padded[..., :-2]) * (width / 2)


def _down(maps: torch.Tensor, width: float) -> torch.Tensor:
    """Return the central differences down times a width, ``[B, C, H, W]``."""
    padded = functional.pad(maps, (0, 0, 1, 1), mode="replicate")
    if is_exporting():
        return _convolved(padded, [[-width / 2], [0.0], [width / 2]])
    return (padded[..., 2:, :] - padded[..., :-2, :]) * (width / 2)


def _convolved(maps: torch.Tensor, kernel: list[list[float]]) -> torch.Tensor:
    """Return maps ``[B, C, H, W]``, each correlated with a kernel ``[h, w]`` where it lies inside."""
    planes = maps.shape[1]
    # Of numbers, not tensors: a constant of the exported graph, where each operation on it would be traced.
    weight = torch.tensor([[kernel]] * planes, dtype=maps.dtype, device=maps.device)
    return functional.conv2d(maps, weight, groups=planes)


def _eigenvalues(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the larger and the smaller eigenvalue of the matrices ((2 a, b), (b, 2 c)); few passes over the maps."""
    mean, half = a + c, a - c
    spread = (half * half + b * b + _EPS).sqrt()
    return mean + spread, mean - spread


def quartered(images: torch.Tensor) -> torch.Tensor:
    """Return the means over blocks of 4x4 px; a last block that is not full is filled with the border's pixels."""
    height, width = images.shape[-2:]
    padded = functional.pad(images, (0, -width % STRIDE, 0, -height % STRIDE), mode="replicate")
    return functional.avg_pool2d(padded, STRIDE)
