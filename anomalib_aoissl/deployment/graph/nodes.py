# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Nodes of an OpenVINO graph: tensors and constants by name, and how their consumers are redirected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import openvino

_ANCHOR = "aoissl.anchor"
"""Name of the node that holds constants which the graph does not compute with."""


def named_tensors(model: openvino.Model) -> dict[str, openvino.Output]:
    """Return all tensors of a model that have a name, by name."""
    return {name: o for node in model.get_ordered_ops() for o in node.outputs() for name in o.get_names()}


def constant(name: str, array: np.ndarray) -> openvino.Node:
    """Return a constant of the array under its stable name."""
    from openvino import opset13 as ops

    node = ops.constant(np.ascontiguousarray(array), name=name)
    node.output(0).set_names({name})
    return node


def constants(model: openvino.Model, prefix: str) -> dict[str, np.ndarray]:
    """Return the constants whose names begin with a prefix, without it."""
    nodes = {node.get_friendly_name(): node for node in model.get_ordered_ops() if node.get_type_name() == "Constant"}
    return {name.removeprefix(prefix): node.data for name, node in nodes.items() if name.startswith(prefix)}


def redirect(tensors: dict[str, openvino.Output], name: str, new: openvino.Output) -> None:
    """Redirect the consumers of a marked tensor to another one, which takes its name."""
    old = tensors.get(name)
    if old is None:
        new.add_names({name})
        tensors[name] = new
        return
    for reader in old.get_target_inputs():
        if reader.get_node().get_name() != new.get_node().get_name():
            reader.replace_source_output(new)
    rename(tensors, name, new)


def rename(tensors: dict[str, openvino.Output], name: str, new: openvino.Output) -> None:
    """Give a marked tensor's name to another one."""
    _move_names(tensors[name], new, {name})
    tensors[name] = new


def hold(model: openvino.Model, nodes: Sequence[openvino.Node]) -> None:
    """Keep constants in the model that nothing computes with: the score gets 0 times their sizes added."""
    from openvino import opset13 as ops

    if not nodes:
        return
    sizes = [ops.convert(ops.reduce_sum(ops.shape_of(node), np.int64(0)), "f32") for node in nodes]
    total = sizes[0]
    for size in sizes[1:]:
        total = ops.add(total, size)
    score = model.output("pred_score")
    result, source = score.get_node(), score.get_node().input_value(0)
    anchor = ops.add(source, ops.multiply(total, np.float32(0)))
    anchor.set_friendly_name(_ANCHOR)
    _move_names(source, anchor.output(0), {"pred_score"})
    result.input(0).replace_source_output(anchor.output(0))


def release(model: openvino.Model) -> None:
    """Undo `hold`."""
    score = model.output("pred_score")
    anchor = score.get_node().input_value(0).get_node()
    if anchor.get_friendly_name() == _ANCHOR:
        source = anchor.input_value(0)
        score.get_node().input(0).replace_source_output(source)
        _move_names(anchor.output(0), source, {"pred_score"})


def _move_names(old: openvino.Output, new: openvino.Output, names: set[str]) -> None:
    """Give names of a tensor to another one."""
    old.set_names(old.get_names() - names)
    new.add_names(names)
