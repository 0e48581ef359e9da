# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""A graph of operations that OpenVINO keeps as they are.

When it compiles a graph, OpenVINO replaces some operations by others: a difference by a sum, a quotient by a product,
newer kinds of padding and interpolation by older ones. The new ones do not take over the marks of the old ones, see
`full_precision`, and are computed in bfloat16 where the processor has it. So they are replaced here, before the marks
are set.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def kept_operations(model: Any) -> Any:
    """Return an `openvino.Model` with the same answers, without operations that would lose their marks."""
    model = model.clone()
    for node in model.get_ordered_ops():
        replace = _REPLACED.get((node.get_type_name(), node.get_type_info().version_id))
        new = replace(node) if replace is not None and _is_computed(node) else None
        if new is not None:
            _take_place(node, new)
    model.validate_nodes_and_infer_types()
    return model


def _is_computed(node: Any) -> bool:
    """Whether a node gives numbers of 32 bits that are not weights stored in 8, whose pattern OpenVINO looks for."""
    stored = _constant(node.input_value(0))
    weights = stored is not None and not stored.get_element_type().is_real()
    return node.get_output_element_type(0).get_type_name() == "f32" and not weights


def _constant(port: Any) -> Any:
    """Return the constant that an input is, or is converted from; None where it is computed."""
    node = port.get_node()
    if node.get_type_name() == "Convert":
        node = node.input_value(0).get_node()
    return node if node.get_type_name() == "Constant" else None


def _take_place(old: Any, new: Any) -> None:
    """Have all that reads a node read another, which takes over its names."""
    name, names = old.get_friendly_name(), old.output(0).get_names()
    for port in list(old.output(0).get_target_inputs()):
        port.replace_source_output(new.output(0))
    old.output(0).get_tensor().set_names(set())
    new.output(0).get_tensor().set_names(names)
    old.set_friendly_name(f"{name}/replaced")
    new.set_friendly_name(name)


def _difference(node: Any) -> Any:
    """Return a + c * b for a - b, where c is the number next to -1: of a + -1 * b OpenVINO makes a difference again."""
    from openvino import opset13 as ops

    first, second = node.input_values()
    return ops.add(first, ops.multiply(second, np.nextafter(np.float32(-1), np.float32(-2))))


def _quotient(node: Any) -> Any:
    """Return a * b * b^-2 for a / b; of a * b^-1 OpenVINO makes a quotient again."""
    from openvino import opset13 as ops

    first, second = node.input_values()
    return ops.multiply(ops.multiply(first, second), ops.power(second, np.float32(-2)))


def _padding(node: Any) -> Any:
    """Return the first kind of padding for the twelfth; None where it cuts, which the first cannot."""
    from openvino import opset1

    values = [port.get_node() for port in node.input_values()[1:3]]
    if any(value.get_type_name() != "Constant" or (value.data < 0).any() for value in values):
        return None
    mode, rest = node.get_attributes()["pad_mode"], node.input_values()[3:]
    return opset1.pad(*node.input_values()[:3], mode, *rest)


def _interpolation(node: Any) -> Any:
    """Return the fourth kind of interpolation for the eleventh, to given sizes; None for given scales."""
    from openvino import opset13 as ops
    from openvino.utils.node_factory import NodeFactory

    attributes = node.get_attributes()
    if attributes["shape_calculation_mode"] != "sizes":
        return None
    image, sizes, *axes = node.input_values()
    scales = ops.constant(np.ones(sizes.get_partial_shape()[0].get_length(), np.float32))  # are not read
    return NodeFactory("opset4").create("Interpolate", [image, sizes, scales.output(0), *axes], attributes)


def _of_equal_ranks(node: Any) -> Any:
    """Return a product of matrices, the smaller one with axes of length 1 in front.

    None where ranks are equal, or the smaller one is constant: OpenVINO knows that as a linear layer.
    """
    from openvino import opset13 as ops

    factors = list(node.input_values())
    ranks = [factor.get_partial_shape().rank.get_length() for factor in factors]
    small = ranks.index(min(ranks))
    if ranks[0] == ranks[1] or min(ranks) < 2 or _constant(factors[small]) is not None:
        return None
    factors[small] = ops.unsqueeze(factors[small], np.arange(max(ranks) - min(ranks))).output(0)
    return ops.matmul(*factors, **node.get_attributes())


_REPLACED: dict[tuple[str, str], Callable[[Any], Any]] = {
    ("Subtract", "opset1"): _difference,
    ("Divide", "opset1"): _quotient,
    ("Pad", "opset12"): _padding,
    ("Interpolate", "opset11"): _interpolation,
    ("MatMul", "opset1"): _of_equal_ranks,
}
"""What makes another node of one, by its type and version; None leaves it."""
