# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Explanations: the votes name where they come from, and they give the class that the model gives."""

import json
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from anomalib_aoissl.bank.explaining import Vote
from anomalib_aoissl.encoder.vit import PatchEncoder
from anomalib_aoissl.retrieval.asking.explaining import explain_region
from anomalib_aoissl.retrieval.memory.memory_bank import MemoryBank
from anomalib_aoissl.retrieval.options import VoteOptions
from anomalib_aoissl.retrieval.torch_model import RetrievalModel
from anomalib_aoissl.visualization.explanation_picture import draw_explanation

SIZE = (32, 48)
CLASSES = ["background", "wire", "ball"]


def make_model(tiny_encoder: dict, budget: int | None = None) -> tuple[RetrievalModel, torch.Tensor, torch.Tensor]:
    encoder = PatchEncoder(tiny_encoder, image_size=SIZE, pretrained=False)
    bank = MemoryBank(encoder.embed_dim, encoder.patch_size, budget=budget)
    model = RetrievalModel(encoder, VoteOptions(6), bank=bank).eval()
    pictures, masks = torch.rand(3, 3, *SIZE), torch.randint(0, 3, (3, *SIZE)).to(torch.uint8)
    masks[0, 0, 0] = 255
    model.bank.class_names = list(CLASSES)
    model.fill(pictures, masks, ["a", "b", "b"], ["x", "y", "z"])
    model.bank.finish()
    return model, pictures, masks


def votes_for(model: RetrievalModel, image: torch.Tensor, pixel: tuple[int, int]) -> list[Vote]:
    """Return the votes for a pixel, the most similar patch first."""
    region = torch.zeros(SIZE, dtype=torch.bool)
    region[pixel] = True
    return sorted(explain_region(model, image, region)[0].votes, key=lambda vote: -vote.similarity)


def test_a_labelled_pixel_is_explained_by_itself(tiny_encoder: dict) -> None:
    model, pictures, masks = make_model(tiny_encoder)
    votes = votes_for(model, pictures[1], (19, 37))
    assert (votes[0].image, votes[0].device, votes[0].box) == ("y", "b", (16, 32, 8, 8))
    assert votes[0].similarity == pytest.approx(1, abs=1e-5)
    assert votes[0].label == CLASSES[masks[1, 19, 37]]
    assert votes[0].patches == 1
    assert sum(vote.weight for vote in votes) == pytest.approx(1, abs=1e-5)
    assert [vote.similarity for vote in votes] == sorted((vote.similarity for vote in votes), reverse=True)
    assert votes_for(model, pictures[0], (0, 0))[0].label == ""  # ignored


@pytest.mark.parametrize("budget", [None, 20])
def test_the_votes_give_the_class_of_the_mask(tiny_encoder: dict, budget: int | None) -> None:
    model, *_ = make_model(tiny_encoder, budget)
    image = torch.rand(3, *SIZE)
    mask = model(image[None]).pred_mask[0, 0]
    for pixel in [(0, 0), (7, 8), (31, 47), (15, 20), (16, 3)]:
        sums: Any = Counter()
        for vote in votes_for(model, image, pixel):
            sums[vote.label] += vote.weight
        assert sums.most_common(1)[0][0] == CLASSES[mask[pixel]]


@pytest.mark.parametrize("budget", [None, 20])
def test_a_region_is_explained_by_the_mean_of_its_pixels(tiny_encoder: dict, budget: int | None) -> None:
    model, *_ = make_model(tiny_encoder, budget)
    image, region = torch.rand(3, *SIZE), torch.zeros(SIZE, dtype=torch.bool)
    pixels = [(0, 0), (0, 1), (7, 9), (20, 30), (31, 47)]
    for pixel in pixels:
        region[pixel] = True
    result, mask = explain_region(model, image, region)
    tally: Any = Counter()
    of_entry: dict[int, Any] = {}
    similarity: dict[int, float] = {}
    for pixel in pixels:
        for vote in votes_for(model, image, pixel):
            tally[vote.label] += vote.weight / 5
            of_entry.setdefault(vote.entry, Counter())[vote.label] += vote.weight / 5
            similarity[vote.entry] = max(similarity.get(vote.entry, -1), vote.similarity)
    assert result.tally == pytest.approx({name: share for name, share in tally.items() if share}, abs=1e-5)
    assert list(result.tally.values()) == sorted(result.tally.values(), reverse=True)
    assert {vote.entry for vote in result.votes} == set(of_entry)
    assert [vote.weight for vote in result.votes] == sorted((vote.weight for vote in result.votes), reverse=True)
    for vote in result.votes:
        assert vote.weight == pytest.approx(sum(of_entry[vote.entry].values()), abs=1e-5)
        assert of_entry[vote.entry][vote.label] == pytest.approx(max(of_entry[vote.entry].values()), abs=1e-5)
        assert vote.similarity == pytest.approx(similarity[vote.entry], abs=1e-5)
    batch = model(image[None])
    assert np.array_equal(mask, batch.pred_mask[0, 0].numpy())
    classes = Counter(CLASSES[batch.pred_mask[0, 0][pixel]] for pixel in pixels)
    assert result.predicted == pytest.approx({name: count / 5 for name, count in classes.items()})
    assert result.novelty == pytest.approx(batch.anomaly_map[0, 0][region].mean().item(), abs=1e-6)
    assert (result.box, result.pixels, result.abstained) == ((0, 0, 32, 48), 5, None)
    assert json.loads(json.dumps(result.to_dict()))["votes"][0]["entry"] == result.votes[0].entry


def test_regions_of_another_size_or_of_nothing_raise(tiny_encoder: dict) -> None:
    model, pictures, _ = make_model(tiny_encoder)
    with pytest.raises(ValueError, match=r"mask of 32x48 px with a pixel in it; got \(32, 48\) with 0 pixels"):
        explain_region(model, pictures[0], torch.zeros(SIZE, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"got \(4, 4\) with 16 pixels"):
        explain_region(model, pictures[0], torch.ones(4, 4, dtype=torch.bool))


def test_the_picture_shows_the_region_and_says_where_an_image_is_missing(tiny_encoder: dict) -> None:
    model, pictures, _ = make_model(tiny_encoder)
    region = torch.zeros(SIZE, dtype=torch.bool)
    region[8:16, 16:24] = True
    explanation, _ = explain_region(model, pictures[1], region)
    assert explanation.votes[0].image == "y"
    labels = model.bank.labels[[vote.entry for vote in explanation.votes[:4]]].reshape(-1, 8, 8).numpy()
    mask, query = np.zeros(SIZE, dtype=np.uint8), np.full((64, 96, 3), 40, dtype=np.uint8)
    asked: list[str] = []

    def read(name: str) -> np.ndarray | None:
        asked.append(name)
        return query if name == "y" else None

    sheet = np.array(draw_explanation(explanation, query, mask, CLASSES, labels, read, SIZE))
    assert asked == list(dict.fromkeys(vote.image for vote in explanation.votes[:4]))  # each image once
    frame = (sheet == (255, 60, 200)).all(axis=-1)
    rows, columns = frame[:360, :540].nonzero()  # 12 px from the corner, 520 px for 48
    assert [columns.min(), columns.max()] == pytest.approx([12 + 16 * 520 / 48, 12 + 24 * 520 / 48], abs=4)
    assert [rows.min(), rows.max()] == pytest.approx([12 + 8 * 520 / 48, 12 + 16 * 520 / 48], abs=4)
    missing = sum(vote.image != "y" for vote in explanation.votes[:4])
    assert missing
    assert ((sheet == 110).all(axis=-1)).sum() > 0.8 * missing * 190 * 190
