# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Search by FAISS: the flat index finds what a full sort finds, cells find most of it, and edits are seen."""

import pickle
import sys

import pytest
import torch
from torch.nn import functional

from anomalib_aoissl.encoder.vit import PatchEncoder
from anomalib_aoissl.matching.faiss_search import FaissSearch, check_faiss
from anomalib_aoissl.matching.precision import restored, stored
from anomalib_aoissl.retrieval.memory.memory_bank import MemoryBank
from anomalib_aoissl.retrieval.options import VoteOptions
from anomalib_aoissl.retrieval.torch_model import RetrievalModel

SIZE = (16, 24)


def unit(entries: int, dims: int = 16) -> torch.Tensor:
    return functional.normalize(torch.randn(entries, dims), dim=-1)


def test_without_faiss_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tiny_encoder: dict) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    encoder = PatchEncoder(tiny_encoder, image_size=SIZE, pretrained=False)
    with pytest.raises(ModuleNotFoundError, match=r"search='faiss-ivf' needs FAISS: pip install 'anomalib-aoissl\[fa"):
        RetrievalModel(encoder, VoteOptions(search="faiss-ivf"))
    check_faiss("exact")


@pytest.mark.parametrize("dtype", [torch.float32, torch.int8])
def test_the_flat_index_equals_a_full_sort(dtype: torch.dtype) -> None:
    pytest.importorskip("faiss", reason="faiss-cpu is not installed")
    keys, queries = stored(unit(700), dtype), unit(30)
    similarities, entries = FaissSearch("faiss-flat")(queries, keys, 9)
    expected = (queries @ restored(keys).T).sort(dim=1, descending=True)
    assert torch.equal(entries, expected.indices[:, :9])
    torch.testing.assert_close(similarities, expected.values[:, :9], atol=1e-6, rtol=0)


def test_cells_find_most_neighbours_and_always_k(tiny_encoder: dict) -> None:
    pytest.importorskip("faiss", reason="faiss-cpu is not installed")
    centres = unit(40)
    keys = functional.normalize(centres.repeat_interleave(100, 0) + 0.1 * torch.randn(4000, 16), dim=1)
    queries = functional.normalize(centres + 0.1 * torch.randn(40, 16), dim=1)
    search = FaissSearch("faiss-ivf")
    similarities, entries = search(queries, keys, 10)
    exact = (queries @ keys.T).topk(10).indices
    recall = sum(len(set(a) & set(b)) for a, b in zip(entries.tolist(), exact.tolist(), strict=True)) / 400
    assert search._index.nprobe == 8
    assert 0.9 < recall <= 1.0
    torch.testing.assert_close(similarities, (queries @ keys.T).gather(1, entries), atol=1e-6, rtol=0)
    assert torch.equal(FaissSearch("faiss-ivf")(queries, keys, 10)[1], entries)  # deterministic
    most = search(queries, keys, 3000)[1]  # the cells that are read hold fewer
    assert int(most.min()) >= 0
    assert all(len(set(entry)) == 3000 for entry in most.tolist())


def test_edits_are_seen_and_the_index_is_not_saved(tiny_encoder: dict) -> None:
    pytest.importorskip("faiss", reason="faiss-cpu is not installed")
    encoder = PatchEncoder(tiny_encoder, image_size=SIZE, pretrained=False)
    bank = MemoryBank(encoder.embed_dim, encoder.patch_size)
    bank.class_names = ["background", "wire", "ball"]
    models = [RetrievalModel(encoder, VoteOptions(3, search=name), bank=bank) for name in ("exact", "faiss-flat")]
    images, masks = torch.rand(3, 3, *SIZE), torch.randint(0, 3, (3, *SIZE)).to(torch.uint8)

    def same() -> bool:
        first, second = (model(images) for model in models)
        torch.testing.assert_close(first.anomaly_map, second.anomaly_map, atol=1e-6, rtol=0)
        return torch.equal(first.pred_mask, second.pred_mask)

    models[0].fill(images[:2], masks[:2], ["a", "b"], ["x", "y"])
    bank.finish()
    assert same()
    bank.remove(device="a")
    assert same()
    state = dict(bank.state_dict())
    state["embeddings"] = state["embeddings"].flip(0)
    bank.load_state_dict(state)  # in place: the same tensor, other values
    assert same()
    assert pickle.loads(pickle.dumps(models[1].search)).name == "faiss-flat"  # noqa: S301
