# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""A graph of operations that OpenVINO keeps as they are.

When it compiles a graph, OpenVINO replaces some operations by others: a difference by a sum, a quotient by a product,
newer kinds of padding, interpolation and softmax by older ones; and it makes one operation of a layer and its bias, and
of attention. The new ones do not take over the marks of the old ones, see `full_precision`, and are computed in
bfloat16 where the processor has it. So they are replaced here, before the marks are set.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import openvino


def kept_operations(model: openvino.Model) -> openvino.Model:
    """Return an `openvino.Model` with the same answers, without operations that would lose their marks."""
    model = model.clone()
    for node in model.get_ordered_ops():
        replace = _REPLACED.get((node.get_type_name(), node.get_type_info().version_id))
        new = replace(node) if replace is not None and _is_computed(node) else None
        if new is not None:
            _take_place(node, new)
    model.validate_nodes_and_infer_types()
    return model


def _is_computed(node: openvino.Node) -> bool:
    """Whether a node gives numbers of 32 bits that are not weights stored in 8, whose pattern OpenVINO looks for."""
    stored = _constant(node.input_value(0))
    weights = stored is not None and not stored.get_element_type().is_real()
    return node.get_output_element_type(0).get_type_name() == "f32" and not weights


def _constant(port: openvino.Output) -> openvino.Output:
    """Return the constant that an input is, or is converted from; None where it is computed."""
    node = port.get_node()
    if node.get_type_name() == "Convert":
        node = node.input_value(0).get_node()
    return node if node.get_type_name() == "Constant" else None


def _take_place(old: openvino.Output, new: openvino.Output) -> None:
    """Have all that reads a node read another, which takes over its names."""
    name, names = old.get_friendly_name(), old.output(0).get_names()
    for port in list(old.output(0).get_target_inputs()):
        port.replace_source_output(new.output(0))
    old.output(0).get_tensor().set_names(set())
    new.output(0).get_tensor().set_names(names)
    old.set_friendly_name(f"{name}/replaced")
    new.set_friendly_name(name)


def _difference(node: openvino.Node) -> openvino.Output:
    """Return (2 * a + -2 * b) / 2 for a - b, which is exact; of a + -1 * b OpenVINO makes a difference again."""
    from openvino import opset13 as ops

    first, second = (ops.multiply(port, np.float32(f)) for port, f in zip(node.input_values(), (2, -2), strict=True))
    return ops.multiply(ops.add(first, second), np.float32(0.5))


def _quotient(node: openvino.Node) -> openvino.Output:
    """Return a * b * b^-2 for a / b; of a * b^-1 OpenVINO makes a quotient again, unless b is constant."""
    from openvino import opset13 as ops

    first, second = node.input_values()
    constant = _constant(second)
    if constant is not None:
        return ops.multiply(first, 1 / constant.data.astype(np.float32))
    return ops.multiply(ops.multiply(first, second), ops.power(second, np.float32(-2)))


def _padding(node: openvino.Node) -> openvino.Output:
    """Return the first kind of padding for the twelfth; None where it cuts, which the first cannot."""
    from openvino import opset1

    values = [port.get_node() for port in node.input_values()[1:3]]
    if any(value.get_type_name() != "Constant" or (value.data < 0).any() for value in values):
        return None
    mode, rest = node.get_attributes()["pad_mode"], node.input_values()[3:]
    return opset1.pad(*node.input_values()[:3], mode, *rest)


def _interpolation(node: openvino.Node) -> openvino.Output:
    """Return the fourth kind of interpolation for the eleventh, to given sizes; None for given scales."""
    from openvino import opset13 as ops
    from openvino.utils.node_factory import NodeFactory

    attributes = node.get_attributes()
    if attributes["shape_calculation_mode"] != "sizes":
        return None
    image, sizes, *axes = node.input_values()
    scales = ops.constant(np.ones(sizes.get_partial_shape()[0].get_length(), np.float32))  # are not read
    return NodeFactory("opset4").create("Interpolate", [image, sizes, scales.output(0), *axes], attributes)


def _softmax(node: openvino.Node) -> openvino.Output:
    """Return the first kind of softmax for the eighth, whose axis may be counted from the end."""
    from openvino import opset1

    rank = node.input_value(0).get_partial_shape().rank.get_length()
    return opset1.softmax(node.input_value(0), node.get_attributes()["axis"] % rank)


def _joined(node: openvino.Node) -> openvino.Output:
    """Return a concatenation with clamps after those that it takes in, of which OpenVINO makes one; None if none."""
    from openvino import opset13 as ops

    parts = list(node.input_values())
    nested = [part.get_node().get_type_name() == "Concat" for part in parts]
    if not any(nested):
        return None
    parts = [_clamped(part) if inner else part for part, inner in zip(parts, nested, strict=True)]
    return ops.concat(parts, node.get_attributes()["axis"])


def _apart(node: openvino.Node) -> openvino.Output:
    """Return the sum of a linear layer and its bias with a clamp between them that changes nothing; None for others.

    OpenVINO makes one operation of both, without marks, where nothing lies between them.
    """
    from openvino import opset13 as ops

    product, bias = node.input_values()
    layer = product.get_node()
    if layer.get_type_name() != "MatMul" or _constant(layer.input_value(1)) is None or _constant(bias) is None:
        return None
    return ops.add(_clamped(product), bias)


def _attention(node: openvino.Node) -> openvino.Output:
    """Return softmax(q k^T scale) v in its steps, with clamps between them that change nothing; None with a mask.

    OpenVINO computes the steps as one operation, without marks, where nothing lies between them.
    """
    from openvino import opset1
    from openvino import opset13 as ops

    query, key, value, *rest = node.input_values()
    width = query.get_partial_shape()[-1]
    if node.get_attributes()["causal"] or len(rest) == 1 or (rest and not _is_zero(rest[0])) or width.is_dynamic:
        return None
    scale = rest[1] if rest else np.float32(width.get_length() ** -0.5)
    scores = ops.matmul(ops.multiply(query, scale), key, False, True)
    shares = opset1.softmax(_clamped(scores), len(query.get_partial_shape()) - 1)
    return ops.matmul(_clamped(shares), value, False, False)


def _is_zero(port: openvino.Output) -> bool:
    """Whether an input is a constant of zeros."""
    constant = _constant(port)
    return constant is not None and not constant.data.any()


def _clamped(port: openvino.Output) -> openvino.Output:
    """Return the same numbers."""
    from openvino import opset13 as ops

    limit = float(np.finfo(np.float32).max)
    return ops.clamp(port, -limit, limit)


_REPLACED: dict[tuple[str, str], Callable[[openvino.Node], openvino.Output]] = {
    ("Add", "opset1"): _apart,
    ("Concat", "opset1"): _joined,
    ("Subtract", "opset1"): _difference,
    ("Divide", "opset1"): _quotient,
    ("Pad", "opset12"): _padding,
    ("Interpolate", "opset11"): _interpolation,
    ("Softmax", "opset8"): _softmax,
    ("ScaledDotProductAttention", "opset13"): _attention,
}
"""What makes another node of one, by its type and version; None leaves it."""
