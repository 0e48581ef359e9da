# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The search over a bank as OpenVINO operations, built for the entries at hand; needs no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import openvino

CHUNK = 32768
"""Entries that are compared at once, as in torch: 128 KiB of similarities for each query."""


def search(queries: openvino.Output, embeddings: openvino.Output, k: int) -> tuple[openvino.Output, openvino.Output]:
    """Return the k largest similarities ``[Q, k]``, falling, and their entries ``[Q, k]``; k is cut to the bank.

    All entries are compared in 32 bits. Products of integers would take a quarter of the time, but on processors
    without VNNI OpenVINO's overflow, and nothing says so.

    Args:
        queries: Tensor ``[Q, D]`` of unit length.
        embeddings: Constant ``[N, D]``, as a bank stores them.
        k: Neighbours of each query.
    """
    k, scales = min(k, embeddings.get_output_shape(0)[0]), None
    if embeddings.get_element_type().get_type_name() == "i8":
        lengths = np.linalg.norm(embeddings.data.astype(np.float32), axis=1)
        scales = (1 / lengths.clip(1e-12)).astype(np.float32)  # an integer entry has its direction alone
    return _nearest(queries, embeddings, scales, k)


def _nearest(
    queries: openvino.Output, embeddings: openvino.Output, scales: np.ndarray | None, k: int
) -> tuple[openvino.Output, openvino.Output]:
    """Return the k largest products ``[Q, k]`` in falling order and their entries, chunk by chunk."""
    from openvino import opset13 as ops

    number, values, indices = embeddings.get_output_shape(0)[0], [], []
    for start in range(0, number, CHUNK):
        stop = min(start + CHUNK, number)
        keys = ops.convert(_part(embeddings, start, stop), "f32")
        products = ops.matmul(queries, keys, False, True)  # [Q, chunk]
        if scales is not None:
            products = ops.multiply(products, ops.constant(scales[start:stop]))
        best = ops.topk(products, np.int64(min(k, stop - start)), 1, "max", "value", "i32")
        values.append(best.output(0))
        indices.append(ops.add(best.output(1), np.int32(start)).output(0) if start else best.output(1))
    if len(values) == 1:
        return values[0], indices[0]
    best = ops.topk(ops.concat(values, 1), np.int64(k), 1, "max", "value", "i32")
    return best.output(0), ops.gather_elements(ops.concat(indices, 1), best.output(1), 1).output(0)


def _part(entries: openvino.Output, start: int, stop: int) -> openvino.Output:
    """Return some entries of a constant, itself where these are all."""
    from openvino import opset13 as ops

    if (start, stop) == (0, entries.get_output_shape(0)[0]):
        return entries
    return ops.slice(entries, [start], [stop], [1], [0])
