# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Smoothed shares of the vote as OpenVINO operations, built for the classes at hand; needs no torch."""

from __future__ import annotations

from typing import Any

import numpy as np


def smooth_shares(
    votes: Any, classes: int, image_size: tuple[int, int], patch_size: tuple[int, int], times: int
) -> Any:
    """Return the smoothed shares ``[Q, C, L]`` of votes ``[Q, C, L]``: what `smoothing.smooth_shares` computes.

    Args:
        votes: Tensor of the votes for each class, Q = batch * patches.
        classes: C.
        image_size: (height, width) of the encoder's input, px.
        patch_size: (height, width) of a patch, px.
        times: Passes of the filter.
    """
    from openvino import opset13 as ops

    (height, width), (down, across) = image_size, patch_size
    rows, columns = height // down, width // across
    total = ops.maximum(ops.reduce_sum(votes, np.array([1]), True), np.float32(1e-12))
    blocks = ops.reshape(ops.divide(votes, total), np.array([-1, rows, columns, classes, down, across]), False)
    maps = ops.reshape(ops.transpose(blocks, [0, 3, 1, 4, 2, 5]), np.array([-1, classes, height, width]), False)
    for _ in range(times):
        maps = ops.pad(maps, [0, 0, 1, 1], [0, 0, 1, 1], "edge")
        for _ in range(2):
            maps = ops.avg_pool(maps, [1, 1], [0, 0], [0, 0], [2, 2], True)
    blocks = ops.reshape(maps, np.array([-1, classes, rows, down, columns, across]), False)
    patches = ops.transpose(blocks, [0, 2, 4, 1, 3, 5])
    return ops.reshape(patches, np.array([-1, classes, down * across]), False).output(0)
