# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Which image to label next: the greedy choice by brute force, and what it should never do."""

import pytest
import torch
from torch.nn import functional

from anomalib_aoissl.encoder.vit import PatchEncoder
from anomalib_aoissl.retrieval.asking import label_next
from anomalib_aoissl.retrieval.asking.label_next import PoolImage, choose, summarize
from anomalib_aoissl.retrieval.memory.memory_bank import MemoryBank
from anomalib_aoissl.retrieval.torch_model import RetrievalModel


def unit(*shape: int, seed: int) -> torch.Tensor:
    return functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def make_pool(images: int = 8, patches: int = 5) -> list[PoolImage]:
    generator = torch.Generator().manual_seed(4)
    weights = torch.rand(images, patches, generator=generator)
    return [
        PoolImage(f"{index}", unit(patches, 6, seed=index), w / w.sum(), torch.rand(patches, generator=generator), 0, 0)
        for index, w in enumerate(weights)
    ]


def test_the_choice_equals_a_greedy_search_over_all_images() -> None:
    pool = make_pool()
    chosen: list[int] = []

    def coverage(indices: list[int]) -> float:
        total = 0.0
        for image in pool:
            for patch, weight, known in zip(image.embeddings, image.weights, image.similarity, strict=True):
                near = [float((pool[i].embeddings @ patch).max()) for i in indices]
                total += float(weight) * max([float(known), *near]) / len(pool)
        return total

    choices = choose(pool, 5)
    for choice in choices:
        before = coverage(chosen)
        gains = {i: coverage([*chosen, i]) - before for i in range(len(pool)) if i not in chosen}
        best = max(gains, key=gains.__getitem__)
        assert choice.name == pool[best].name
        assert choice.gain == pytest.approx(gains[best], abs=1e-6)
        chosen.append(best)
        assert choice.coverage == pytest.approx(coverage(chosen), abs=1e-6)


def test_a_copy_is_not_chosen_before_anything_else_and_a_small_pool_is_taken_whole() -> None:
    pool = make_pool(4)
    copy = PoolImage("copy", pool[0].embeddings, pool[0].weights, pool[0].similarity, 0, 0)
    choices = choose([*pool, copy], 50)
    assert len(choices) == 5
    names = [choice.name for choice in choices]
    assert names[-1] in {"0", "copy"}
    assert choices[-1].gain == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="count=0 of a pool of 4 images"):
        choose(pool, 0)
    with pytest.raises(ValueError, match="count=3 of a pool of 0 images"):
        choose([], 3)


def make_model(tiny_encoder: dict, entries: int) -> RetrievalModel:
    encoder = PatchEncoder(tiny_encoder, image_size=(32, 48), pretrained=False)
    bank = MemoryBank(encoder.embed_dim, encoder.patch_size)
    bank.embeddings = unit(entries, 32, seed=99)
    return RetrievalModel(encoder, bank=bank)


def test_representatives_leave_no_patch_far_away(tiny_encoder: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_next, "REPRESENTATIVES", 6)
    model = make_model(tiny_encoder, entries=7)
    patches = functional.normalize(unit(6, 32, seed=1).repeat(4, 1) + 0.02 * torch.randn(24, 32), dim=-1)
    image = summarize("a", patches, model.bank.embeddings)
    nearest = patches @ image.embeddings.T
    assert nearest.max(dim=1).values.min() > 0.9  # one of each of the six groups
    shares = torch.bincount(nearest.argmax(dim=1), minlength=6) / 24
    torch.testing.assert_close(image.weights, shares)
    known = (patches @ model.bank.embeddings.T).max(dim=1).values
    assert image.novelty == pytest.approx(1 - known.mean().item(), abs=1e-5)
    assert image.largest_novelty == pytest.approx(1 - known.min().item(), abs=1e-5)
    own = (image.embeddings @ model.bank.embeddings.T).max(dim=1).values
    torch.testing.assert_close(image.similarity, own.clamp(min=0))


def test_an_empty_bank_knows_nothing() -> None:
    image = summarize("a", unit(9, 32, seed=2), torch.empty(0, 32))
    assert len(image.embeddings) == 9  # fewer patches than representatives
    assert (image.novelty, image.similarity.tolist()) == (1, [0] * 9)
    (choice,) = choose([image], 3)
    assert choice.coverage == pytest.approx(1, abs=1e-5)
