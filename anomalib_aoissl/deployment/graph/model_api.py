# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""A model for OpenVINO's Model API: ``SegmentationModel.create_model`` of its path, and nothing to configure.

Its input is a picture as OpenCV reads it, ``[B, H, W, C]`` uint8 of any size, blue first where C is 3. Its one output
is the class probabilities ``[B, classes, h, w]``. What the wrapper must know is in the runtime information.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .joint import JOINT

if TYPE_CHECKING:
    import openvino

OUTPUT = "segmentation"
"""Name of the output."""

_PROBABILITIES = (JOINT, "class_probabilities")
"""Marked tensors ``[B, classes, h, w]`` whose largest decides a class; the first that there is."""


def model_api_model(model: openvino.Model, class_names: Sequence[str]) -> openvino.Model:
    """Return the `openvino.Model` for the Model API of one that an export made; the given one stays as it is."""
    import openvino
    from openvino.preprocess import ColorFormat, PrePostProcessor

    model = model.clone()
    nodes = [node for node in model.get_ordered_ops() if node.get_type_name() != "Result"]  # which have names too
    named = {name: port for node in nodes for port in node.outputs() for name in port.get_names()}
    found = next((named[name] for name in _PROBABILITIES if name in named), None)
    scores = _one_hot(named["pred_mask"], len(class_names)) if found is None else found
    result = openvino.opset13.result(scores)
    scores.add_names({OUTPUT})
    planes = model.input(0).partial_shape[1].get_length()
    model = openvino.Model([result], model.get_parameters(), "segmentation")
    steps = PrePostProcessor(model)
    steps.input().tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
    steps.input().model().set_layout(openvino.Layout("NCHW"))
    before = steps.input().preprocess()
    if planes == 3:
        steps.input().tensor().set_color_format(ColorFormat.BGR)
        before = before.convert_color(ColorFormat.RGB)
    # Bytes are moved, since moved floats may have 16 bits.
    before.convert_layout(openvino.Layout("NCHW")).convert_element_type(openvino.Type.f32).scale(255.0)
    model = steps.build()
    for name, value in _information(class_names).items():
        model.set_rt_info(value, ["model_info", name])
    return model


def _information(class_names: Sequence[str]) -> Mapping[str, str]:
    """Return what the wrapper reads; it parts labels at spaces."""
    return {
        "model_type": "Segmentation",
        "embedded_processing": "True",
        "labels": " ".join(name.replace(" ", "_") for name in class_names),
        "blur_strength": "-1",
        "return_soft_prediction": "True",
        "resize_type": "standard",
    }


def _one_hot(mask: openvino.Output, classes: int) -> openvino.Output:
    """Return class indices ``[B, 1, h, w]`` as probabilities 0 and 1, ``[B, classes, h, w]``."""
    from openvino import opset13 as ops

    indices = ops.constant(np.arange(classes, dtype=np.int32).reshape(1, -1, 1, 1))
    return ops.convert(ops.equal(ops.convert(mask, "i32"), indices), "f32").output(0)
