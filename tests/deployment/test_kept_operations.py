# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Saved graphs hold no operation that OpenVINO would replace, answer the same, and stay in 32 bits by themselves."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anomalib_aoissl.deployment.files.kept_operations import kept_operations
from anomalib_aoissl.deployment.files.model_file import core, read_model, save_model

REPLACED = {
    ("Subtract", "opset1"),
    ("Divide", "opset1"),
    ("Pad", "opset12"),
    ("Interpolate", "opset11"),
    ("Softmax", "opset8"),
    ("ScaledDotProductAttention", "opset13"),
}
WEIGHTS = np.random.default_rng(1).normal(size=(9 * 13, 5)).astype(np.float32)
BIAS = np.arange(5, dtype=np.float32)


def graph() -> Any:
    """Return a graph of all operations that are replaced: of images ``[B, 3, H, W]`` and ``[1, 3, 1, 1]``."""
    from openvino import Model
    from openvino import opset13 as ops

    images = ops.parameter([-1, 3, -1, -1], np.float32, name="images")
    others = ops.parameter([1, 3, 1, 1], np.float32, name="others")
    padded = ops.pad(images, np.array([0, 0, 2, 1]), np.array([0, 0, 1, 2]), "edge")
    joined = ops.concat([ops.concat([ops.divide(padded, np.float32(7)), padded], 1), padded], 1)
    padded = ops.multiply(ops.slice(joined, np.array([0]), np.array([3]), np.array([1]), np.array([1])), np.float32(7))
    quotient = ops.divide(ops.subtract(padded, others), others)
    quotient.output(0).get_tensor().set_names({"quotient"})
    matrix = ops.subtract(ops.convert(ops.constant(np.eye(9, dtype=np.uint8) * 3), np.float32), np.float32(1))
    enlarged = ops.interpolate(ops.matmul(matrix, quotient, False, False), np.array([12, 20]), "linear_onnx", "sizes",
        coordinate_transformation_mode="half_pixel", axes=np.array([2, 3]))  # fmt: skip
    linear = ops.matmul(ops.reshape(quotient, np.array([0, 0, 9 * 13]), True), WEIGHTS, False, False)
    layer = ops.add(linear, BIAS)
    attention = ops.scaled_dot_product_attention(layer, layer, ops.softmax(layer, -1))
    return Model([enlarged, quotient, layer, attention], [images, others])


def expected(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the quotient of `graph` by numpy."""
    padded = np.pad(images, ((0, 0), (0, 0), (2, 1), (1, 2)), mode="edge")
    return np.asarray((padded - others) / others)


def attention(layer: np.ndarray) -> np.ndarray:
    """Return the attention of `graph` by numpy."""
    scores = layer @ layer.swapaxes(1, 2) / np.sqrt(5)
    shares, values = (np.exp(x - x.max(axis=2, keepdims=True)) for x in (scores, layer))
    return np.asarray((shares / shares.sum(axis=2, keepdims=True)) @ (values / values.sum(axis=2, keepdims=True)))


def inputs() -> list[np.ndarray]:
    """Return images and others, some of them negative."""
    random = np.random.default_rng(0)
    return [random.normal(size=(2, 3, 6, 10)).astype(np.float32), np.float32([0.3, -2.0, 41.0]).reshape(1, 3, 1, 1)]


def kinds(model: Any) -> set[tuple[str, str]]:
    """Return the kinds of a graph's operations and their versions."""
    return {(node.get_type_name(), node.get_type_info().version_id) for node in model.get_ops()}


def test_answers_and_names_stay() -> None:
    before, after = graph(), kept_operations(graph())
    assert kinds(before) >= REPLACED
    compiled = [core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}) for model in (before, after)]
    old, new = (list(model(inputs()).values()) for model in compiled)
    np.testing.assert_allclose(new[1], expected(*inputs()), rtol=2e-6, atol=1e-6)
    np.testing.assert_allclose(new[0], old[0], rtol=1e-5, atol=1e-5)
    linear = expected(*inputs()).reshape(2, 3, -1) @ WEIGHTS + BIAS
    np.testing.assert_allclose(new[2], linear, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(new[3], attention(linear), rtol=1e-4, atol=1e-4)
    assert after.output(1).get_names() == {"quotient"}


def test_only_weights_of_8_bits_keep_their_difference() -> None:
    left = [node for node in kept_operations(graph()).get_ops() if node.get_type_name() == "Subtract"]
    assert [node.input_value(0).get_node().get_type_name() for node in left] == ["Convert"]
    assert not {kind for kind in kinds(kept_operations(graph())) & REPLACED if kind[0] != "Subtract"}


def test_what_is_saved_computes_in_32_bits_by_itself(tmp_path: Path) -> None:
    if "BF16" not in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor has no bfloat16")
    path = save_model(graph(), tmp_path / "model.xml")
    compiled = core().compile_model(read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "bf16"})
    for node in compiled.get_runtime_model().get_ordered_ops():
        info = node.get_rt_info()
        if info["layerType"].astype(str) not in {"Const", "Reorder", "Reshape"}:
            assert info["runtimePrecision"].astype(str) != "bf16", node.get_friendly_name()
    answers = list(compiled(inputs()).values())
    np.testing.assert_allclose(answers[1], expected(*inputs()), rtol=1e-5, atol=1e-5)


def test_what_was_saved_is_saved_again_as_it_is(tmp_path: Path) -> None:
    first = save_model(graph(), tmp_path / "first.xml")
    again = save_model(read_model(first), tmp_path / "again.xml")
    assert kinds(read_model(again)) == kinds(read_model(first))
    assert len(read_model(again).get_ops()) == len(read_model(first).get_ops())


def test_the_given_model_stays_as_it_is() -> None:
    model = graph()
    kept_operations(model)
    assert kinds(model) >= REPLACED
