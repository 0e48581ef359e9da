# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Explanations: the votes name where they come from, and they give the class that the model gives."""

from collections import Counter

import pytest
import torch

from anomalib_aoissl.encoder import PatchEncoder
from anomalib_aoissl.retrieval.explaining import explain
from anomalib_aoissl.retrieval.memory_bank import MemoryBank
from anomalib_aoissl.retrieval.torch_model import RetrievalModel

SIZE = (32, 48)
CLASSES = ["background", "wire", "ball"]


def make_model(tiny_encoder: dict, budget: int | None = None) -> tuple[RetrievalModel, torch.Tensor, torch.Tensor]:
    encoder = PatchEncoder(tiny_encoder, image_size=SIZE, pretrained=False)
    model = RetrievalModel(encoder, k=6, bank=MemoryBank(encoder.embed_dim, encoder.patch_size, budget=budget)).eval()
    pictures, masks = torch.rand(3, 3, *SIZE), torch.randint(0, 3, (3, *SIZE)).to(torch.uint8)
    masks[0, 0, 0] = 255
    model.bank.class_names = list(CLASSES)
    model.fill(pictures, masks, ["a", "b", "b"], ["x", "y", "z"])
    model.bank.finish()
    return model, pictures, masks


def test_a_labelled_pixel_is_explained_by_itself(tiny_encoder: dict) -> None:
    model, pictures, masks = make_model(tiny_encoder)
    votes = explain(model, pictures[1], (19, 37))
    assert (votes[0].image, votes[0].device, votes[0].box) == ("y", "b", (16, 32, 8, 8))
    assert votes[0].similarity == pytest.approx(1, abs=1e-5)
    assert votes[0].label == CLASSES[masks[1, 19, 37]]
    assert votes[0].patches == 1
    assert sum(vote.weight for vote in votes) == pytest.approx(1, abs=1e-5)
    assert [vote.similarity for vote in votes] == sorted((vote.similarity for vote in votes), reverse=True)
    assert explain(model, pictures[0], (0, 0))[0].label == ""  # ignored


@pytest.mark.parametrize("budget", [None, 20])
def test_the_votes_give_the_class_of_the_mask(tiny_encoder: dict, budget: int | None) -> None:
    model, *_ = make_model(tiny_encoder, budget)
    image = torch.rand(3, *SIZE)
    mask = model(image[None]).pred_mask[0, 0]
    for pixel in [(0, 0), (7, 8), (31, 47), (15, 20), (16, 3)]:
        sums: Counter[str] = Counter()
        for vote in explain(model, image, pixel):
            sums[vote.label] += vote.weight
        assert sums.most_common(1)[0][0] == CLASSES[mask[pixel]]


def test_a_pixel_outside_is_refused(tiny_encoder: dict) -> None:
    model, pictures, _ = make_model(tiny_encoder)
    with pytest.raises(ValueError, match=r"pixel=\(32, 0\) lies outside of the image of 32x48 px"):
        explain(model, pictures[0], (32, 0))
