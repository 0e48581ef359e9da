# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The search of an edited OpenVINO model against numpy's full sort in 64 bits, for each way to store entries."""

from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from anomalib_aoissl.deployment.files.model_file import core
from anomalib_aoissl.deployment.graph import search as openvino_search

openvino = pytest.importorskip("openvino")


def drawn(number: int, seed: int, dims: int = 48) -> np.ndarray:
    """Return entries of unit length around 20 centres that are alike, as patches of one product are."""
    centres = np.random.default_rng(0).normal(size=(20, dims)) + 2.0
    generator = np.random.default_rng(seed)
    entries = centres[generator.integers(0, 20, number)] + 0.4 * generator.normal(size=(number, dims))
    return (entries / np.linalg.norm(entries, axis=1, keepdims=True)).astype(np.float32)


def found(queries: np.ndarray, embeddings: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return similarities and entries that the compiled graph finds."""
    from openvino import opset13 as ops

    parameter = ops.parameter([-1, queries.shape[1]], np.float32)
    outputs = openvino_search.search(parameter.output(0), ops.constant(embeddings), k)
    config = {"INFERENCE_PRECISION_HINT": "f32"}
    run: Any = core().compile_model(openvino.Model(list(outputs), [parameter]), "CPU", config)
    similarities, entries = run(queries).values()
    return similarities, entries


def quantised(entries: np.ndarray) -> np.ndarray:
    return np.round(entries * (127 / np.abs(entries).max(axis=1, keepdims=True))).astype(np.int8)


@pytest.mark.parametrize("entries", [5, 40, 2000])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int8])
def test_the_nearest_entries_are_those_of_a_full_sort(dtype: type, entries: int) -> None:
    queries, floats = drawn(150, seed=1), drawn(entries, seed=2)
    embeddings = quantised(floats) if dtype == np.int8 else floats.astype(dtype)
    with patch.object(openvino_search, "CHUNK", 700):
        similarities, indices = found(queries, embeddings, 30)
    keys = embeddings.astype(np.float64)
    if dtype == np.int8:
        keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    exact = queries.astype(np.float64) @ keys.T
    np.testing.assert_allclose(similarities, -np.sort(-exact, axis=1)[:, :30], atol=1e-6)
    # entries whose similarities are as good as equal may change places
    np.testing.assert_allclose(np.take_along_axis(exact, indices, axis=1), similarities, atol=1e-6)
    assert all(len(set(entry)) == min(30, entries) for entry in indices.tolist())


def test_a_query_of_zeros_is_as_far_from_all() -> None:
    similarities, _ = found(np.zeros((2, 48), np.float32), quantised(drawn(100, seed=3)), 4)
    assert (similarities == 0).all()
