# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Autocontext: a second network that also sees what the first one says of a pixel's surroundings."""

from __future__ import annotations

import torch

from .filters import quartered
from .points import RADII, STRIDE, blur


def context_maps(probabilities: torch.Tensor) -> torch.Tensor:
    """Return class probabilities ``[B, C, H, W]`` blurred at each radius, ``[B, 5 * C, ceil(H / 4), ceil(W / 4)]``.

    Tu and Bai, Auto-Context and Its Application to High-Level Vision Tasks, 2010, 10.1109/TPAMI.2009.186; differs in
    that surroundings are Gaussian means at several radii in place of single pixels at many offsets. As products with
    matrices, which fit any number of classes.
    """
    small = quartered(probabilities)
    blurred = []
    for radius in RADII:
        down, across = (torch.from_numpy(blur(side, radius / STRIDE)).to(small) for side in small.shape[-2:])
        blurred.append(down @ small @ across.T)
    return torch.cat(blurred, dim=1)
