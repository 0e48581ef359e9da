# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The search over a bank as OpenVINO operations, built for the rows at hand; needs no torch."""

from __future__ import annotations

from typing import Any

import numpy as np

CHUNK = 32768
"""Rows that are compared at once, as in torch: 128 KiB of similarities for each query."""


def search(queries: Any, embeddings: Any, k: int) -> tuple[Any, Any]:
    """Return the k largest similarities ``[Q, k]`` in falling order and their rows ``[Q, k]``; k is cut to the bank's.

    Rows that are floats are compared in 32 bits. Of rows that are int8 those that may be among the k nearest are found
    by products of integers, which take a quarter of the time, and then compared in 32 bits: similarities are exact,
    and which rows they are of is, unless the query's rounding error puts half as many rows again before one of them.

    Args:
        queries: Tensor ``[Q, D]`` of unit length.
        embeddings: Constant ``[N, D]``, as a bank stores them.
        k: Neighbours of each query.
    """
    number = embeddings.get_output_shape(0)[0]
    k = min(k, number)
    if embeddings.get_element_type().get_type_name() != "i8":
        return _nearest(queries, embeddings, None, k)
    lengths = np.linalg.norm(embeddings.data.astype(np.float32), axis=1, keepdims=True)
    scales = (1 / lengths.clip(1e-12)).astype(np.float32)  # an integer row has its direction alone
    rows = _nearest(_rounded(queries), embeddings, scales, min(candidates_for(k), number))[1]
    return _ranked(queries, embeddings, scales, rows, k)


def candidates_for(k: int) -> int:
    """Return how many rows are compared in 32 bits where integers are searched."""
    return k + max(k // 2, 16)


def _nearest(queries: Any, embeddings: Any, scales: np.ndarray | None, k: int) -> tuple[Any, Any]:
    """Return the k largest products ``[Q, k]`` in falling order and their rows, chunk by chunk."""
    from openvino import opset13 as ops

    number, values, indices = embeddings.get_output_shape(0)[0], [], []
    for start in range(0, number, CHUNK):
        stop = min(start + CHUNK, number)
        keys = ops.convert(_part(embeddings, start, stop), "f32")
        if scales is not None:
            keys = ops.multiply(keys, ops.constant(scales[start:stop]))
        products = ops.matmul(queries, keys, False, True)  # [Q, chunk]
        best = ops.topk(products, np.int64(min(k, stop - start)), 1, "max", "value", "i32")
        values.append(best.output(0))
        indices.append(ops.add(best.output(1), np.int32(start)).output(0) if start else best.output(1))
    if len(values) == 1:
        return values[0], indices[0]
    best = ops.topk(ops.concat(values, 1), np.int64(k), 1, "max", "value", "i32")
    return best.output(0), ops.gather_elements(ops.concat(indices, 1), best.output(1), 1).output(0)


def _part(rows: Any, start: int, stop: int) -> Any:
    """Return some rows of a constant, itself where these are all."""
    from openvino import opset13 as ops

    if (start, stop) == (0, rows.get_output_shape(0)[0]):
        return rows
    return ops.slice(rows, [start], [stop], [1], [0])


def _rounded(queries: Any) -> Any:
    """Return queries ``[Q, D]`` over their largest value, rounded to 8 bits: OpenVINO then multiplies integers."""
    from openvino import opset13 as ops

    largest = ops.maximum(ops.reduce_max(ops.abs(queries), np.array([1]), True), np.float32(1e-12))
    low, high = np.float32(-1), np.float32(1)
    return ops.fake_quantize(ops.divide(queries, largest), low, high, low, high, 255)


def _ranked(queries: Any, embeddings: Any, scales: np.ndarray, rows: Any, k: int) -> tuple[Any, Any]:
    """Return the k largest similarities ``[Q, k]``, in 32 bits, to the given rows ``[Q, M]``, and which rows."""
    from openvino import opset13 as ops

    axis = np.int64(0)
    candidates = ops.convert(ops.gather(embeddings, rows, axis), "f32")  # [Q, M, D]
    products = ops.matmul(candidates, ops.unsqueeze(queries, np.int64(2)), False, False)  # [Q, M, 1]
    similarities = ops.squeeze(ops.multiply(products, ops.gather(ops.constant(scales), rows, axis)), np.array([2]))
    best = ops.topk(similarities, np.int64(k), 1, "max", "value", "i32")
    return best.output(0), ops.gather_elements(rows, best.output(1), 1).output(0)
