# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The product of the pixel head's class probabilities and the vote's, as OpenVINO operations; needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import openvino

JOINT = "joint_probabilities"
"""Name in a graph of class probabilities ``[B, C, H, W]`` that several parts of a model decide: head and vote, or the
networks of the segmenter."""

LEAST_VOTE = 0.3
"""Added to the vote's probabilities, so that no vote outweighs a head that is sure: between a class that all neighbours
show and one that none shows, the factor is 1.3 / 0.3."""


def build_joint(
    tensors: Mapping[str, openvino.Output], image_size: tuple[int, int], patch_size: tuple[int, int]
) -> openvino.Output:
    """Return the class probabilities ``[B, C, H, W]`` of head and vote; what torch's model computes.

    Args:
        tensors: By name: ``class_probabilities`` of the head, ``[B, C, H, W]``, and ``class_votes`` ``[Q, C, L]`` for
            the pixels of each patch.
        image_size: (height, width) of the image, px.
        patch_size: (height, width) of a patch, px.
    """
    from openvino import opset13 as ops

    head, votes, axis = tensors["class_probabilities"], tensors["class_votes"], np.int64(1)
    (height, width), (down, right) = image_size, patch_size
    classes = head.get_partial_shape()[1].get_length()
    total = ops.maximum(ops.reduce_sum(votes, axis, keep_dims=True), np.float32(1e-9))
    cells = [-1, height // down, width // right, classes, down, right]  # batch, patches, classes, pixels
    voted = ops.transpose(ops.reshape(ops.divide(votes, total), cells, False), [0, 3, 1, 4, 2, 5])
    likely = ops.add(ops.reshape(voted, [-1, classes, height, width], False), np.float32(LEAST_VOTE))
    joint = ops.multiply(head, likely)
    return ops.divide(joint, ops.reduce_sum(joint, axis, keep_dims=True)).output(0)
