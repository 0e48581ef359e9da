# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""An exported model as one that answers tiles of a picture: the picture's light goes in, class probabilities come out.

A stock inferencer sees none of it: the file holds the model of one picture with its usual outputs, and what tiles need
are tensors inside, found by their names. So nothing is computed or stored for those who do not tile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from anomalib_aoissl.deployment.abstaining import DECIDING, VOTES, AbstentionFormat
from anomalib_aoissl.deployment.graph.bank import SEARCHED, NotEditableError, read_metadata
from anomalib_aoissl.deployment.graph.nodes import named_tensors

from .light import FIXED_LIGHT, Moments, fixed_light, light_of

if TYPE_CHECKING:
    import openvino

LIGHT = ("light_mean", "light_deviation")
"""Names in a graph of the mean and the deviation that the light is standardised by: ``[B, C, 1, 1]`` of each plane, or
``[B, 1, 1, 1]`` of all together in exports of version 0.2.0."""


def answer_names(model: openvino.Model) -> list[str]:
    """Return the names of the tensors that `maps_of` reads.

    Raises:
        NotEditableError: If the model was exported before tiles were there.
    """
    tensors = named_tensors(model)
    found = [name for name in DECIDING if name in tensors]
    if not set(LIGHT) <= tensors.keys() or not found:
        msg = (
            "The model was exported before pictures could be cut into tiles, so it cannot take tiling. Export it again "
            "with this version: anomalib export --export_type openvino."
        )
        raise NotEditableError(msg)
    return [found[0], "anomaly_map"] if set(SEARCHED) <= tensors.keys() else [found[0]]


def tile_graph(model: openvino.Model, names: Sequence[str]) -> openvino.Model:
    """Return a model from tiles ``[B, C, h, w]`` and `LIGHT` to named tensors; the given one stays as it is."""
    import openvino
    from openvino import opset13 as ops

    model = model.clone()
    tensors, lights = named_tensors(model), []
    for name in LIGHT:
        light = ops.parameter([-1, *tensors[name].get_partial_shape()[1:]], np.float32, name=name)
        for reader in tensors[name].get_target_inputs():
            reader.replace_source_output(light.output(0))
        lights.append(light)
    return openvino.Model([tensors[name] for name in names], [*model.get_parameters(), *lights])


def light_reader(model: openvino.Model) -> Callable[[np.ndarray], Moments]:
    """Return the `light_of` a model, of each plane or of all together; `fixed_light` where light stays as it is."""
    if read_metadata(model).get("light") == FIXED_LIGHT:
        return fixed_light
    return partial(light_of, joint=named_tensors(model)[LIGHT[0]].get_partial_shape()[1] == 1)


def size_of(model: openvino.Model) -> tuple[int, int]:
    """Return the (height, width) px of a model's own size, that of a tile."""
    shape = model.output("pred_mask").get_partial_shape()
    return shape[2].get_length(), shape[3].get_length()


def maps_of(outputs: Sequence[np.ndarray], names: Sequence[str], patches: AbstentionFormat | None) -> np.ndarray:
    """Return class probabilities, and the novelty after them where there is one, ``[B, K, h, w]`` float32.

    Args:
        outputs: The tensors of `answer_names`.
        names: Their names.
        patches: How votes of patches make a picture.
    """
    probabilities = outputs[0]
    if names[0] == VOTES and patches is not None:
        votes = probabilities / np.maximum(probabilities.sum(axis=1, keepdims=True), 1e-9)  # [Q, C, L]
        classes = [patches.picture(votes[:, index]) for index in range(votes.shape[1])]
        probabilities = np.stack(classes, axis=1)
    maps = [probabilities, *outputs[1:]]
    return np.concatenate([np.asarray(part, np.float32) for part in maps], axis=1)
