# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The search against numpy's full sort, for sizes on both sides of each of its limits."""

from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch.nn import functional

from anomalib_aoissl.encoder.vit import PatchEncoder
from anomalib_aoissl.matching import searching
from anomalib_aoissl.matching.searching import largest, products, search
from anomalib_aoissl.retrieval.memory.memory_bank import MemoryBank
from anomalib_aoissl.retrieval.options import VoteOptions
from anomalib_aoissl.retrieval.torch_model import RetrievalModel


def unit(entries: int, dims: int = 16) -> torch.Tensor:
    return functional.normalize(torch.randn(entries, dims), dim=-1)


@pytest.mark.parametrize("columns", [3, 31, 32, 33, 64, 160, 161, 700, 1024, 1055])
@pytest.mark.parametrize("k", [1, 4, 30])
def test_the_largest_values_equal_a_full_sort(columns: int, k: int) -> None:
    values = torch.randn(7, columns)
    best, where = largest(values, k)
    expected = np.argsort(-values.numpy(), axis=1)[:, :k]
    assert where.tolist() == expected.tolist()
    np.testing.assert_array_equal(best, np.take_along_axis(values.numpy(), expected, axis=1))


def test_the_largest_values_may_share_a_group_or_lie_outside_of_all() -> None:
    values = torch.arange(1, 1025, dtype=torch.float32).neg().repeat(2, 1)  # 32 groups: column % 32
    values[0, torch.arange(5, 1024, 32)] += 2000.0  # all of one group
    values = torch.cat([values, torch.tensor([[0.0, -9.0], [7.0, 5.0]])], dim=1)
    assert largest(values, 30)[1][0].tolist() == list(range(5, 30 * 32, 32))
    assert largest(values, 3)[1][1].tolist() == [1024, 1025, 0]


def test_equal_values_give_each_column_once() -> None:
    best, where = largest(torch.ones(3, 2000), 40)
    assert (best == 1).all()
    assert all(len(set(entry)) == 40 for entry in where.tolist())


@pytest.mark.parametrize(("chunk", "block"), [(7, 3), (50, 128), (400, 16), (100_000, 128)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_search_equals_brute_force_for_any_chunk_and_block(chunk: int, block: int, dtype: torch.dtype) -> None:
    keys, queries = unit(1500).to(dtype), unit(40)
    with patch.multiple(searching, BANK_CHUNK=chunk, QUERY_BLOCK=block):
        similarities, entries = search(queries, keys, 9)
    exact = queries.double().numpy() @ keys.double().numpy().T
    assert entries.tolist() == np.argsort(-exact, axis=1)[:, :9].tolist()
    np.testing.assert_allclose(similarities, -np.sort(-exact, axis=1)[:, :9], atol=1e-6)


def test_a_bank_smaller_than_k_gives_all_its_entries() -> None:
    similarities, entries = search(torch.eye(3), torch.eye(3)[:2], 30)
    assert similarities.shape == (3, 2)
    assert sorted(entries[2].tolist()) == [0, 1]


def test_products_with_and_without_onednn() -> None:
    queries, keys = unit(5), unit(9)
    expected = queries.double() @ keys.double().T
    torch.testing.assert_close(products(queries, keys).double(), expected, atol=1e-6, rtol=0)
    with patch.object(torch.backends.mkldnn, "is_available", lambda: False):
        torch.testing.assert_close(products(queries, keys).double(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("entries", [7, 900])
def test_the_search_of_an_export_finds_the_same_for_any_number_of_queries(entries: int) -> None:
    class Searching(torch.nn.Module):
        def forward(self, queries: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return search(queries, keys, 12)

    keys, queries = unit(entries), unit(40)
    with patch.multiple(searching, BANK_CHUNK=400):
        dimensions = ({0: torch.export.Dim("queries", min=2)},)
        program = torch.export.export(Searching(), (queries[:5],), dynamic_shapes=dimensions).module()
        here, exported = search(queries, keys, 12), program(queries)
    torch.testing.assert_close(here[0], exported[0], atol=1e-6, rtol=0)
    assert torch.equal(here[1], exported[1])


def test_the_work_of_a_search_does_not_grow_with_the_images_of_the_bank(tiny_encoder: dict) -> None:
    """The same entries from one image and from 96: the same tensor operations on the same shapes, as often."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Recorded(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.calls: list[tuple[str, list[torch.Size]]] = []

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN204
            self.calls.append((str(func), [a.shape for a in args if isinstance(a, torch.Tensor)]))
            return func(*args, **(kwargs or {}))

    encoder = PatchEncoder(tiny_encoder, image_size=(16, 24), pretrained=False)
    embeddings, masks = torch.randn(96, 6, 32), torch.randint(0, 3, (96, 16, 24)).to(torch.uint8)
    calls = []
    for images in (96, 1):
        bank = MemoryBank(32, (8, 8))
        for i in range(96):
            bank.add(embeddings[i : i + 1], masks[i : i + 1], ["a"], [f"image{i % images}"])
        bank.finish()
        bank.class_names = ["background", "wire", "ball"]
        assert len(bank.image_names) == images
        model = RetrievalModel(encoder, VoteOptions(5), bank=bank)
        with Recorded() as recorded:
            model.ask(torch.ones(1, 6, 32))
        calls.append(recorded.calls)
    assert len(calls[0]) > 10
    assert calls[0] == calls[1]
