# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Temperatures and thresholds of single classes: by hand, by brute force, and what is refused."""

import numpy as np
import pytest
import torch

from anomalib_aoissl import AOISSLRetrieval
from anomalib_aoissl.data.file_format import FileFormat
from anomalib_aoissl.encoder import PatchEncoder
from anomalib_aoissl.retrieval.aggregation import class_votes, class_weights, vote_weights, winners
from anomalib_aoissl.retrieval.explaining import explain
from anomalib_aoissl.retrieval.memory_bank import MemoryBank
from anomalib_aoissl.retrieval.torch_model import RetrievalModel

SIZE = (32, 48)
CLASSES = ["background", "wire", "ball"]


def make_model(tiny_encoder: dict, budget: int | None = None, **arguments: object) -> RetrievalModel:
    encoder = PatchEncoder(tiny_encoder, image_size=SIZE, pretrained=False)
    bank = MemoryBank(encoder.embed_dim, encoder.patch_size, budget=budget)
    model = RetrievalModel(encoder, k=7, temperature=0.05, bank=bank, **arguments)
    masks = torch.randint(0, 3, (3, *SIZE)).to(torch.uint8)
    masks[0, :5, :5] = 255
    model.bank.class_names = list(CLASSES)
    model.fill(torch.rand(3, 3, *SIZE), masks, ["a", "a", "b"], ["x", "y", "z"])
    model.bank.finish()
    return model


def test_weights_of_classes_by_hand() -> None:
    weights = class_weights(torch.tensor([[0.9, 0.8, 0.5]]), [0.1, 0.2])
    expected = [[[1, 1], [np.exp(-1), np.exp(-0.5)], [np.exp(-4), np.exp(-2)]]]
    np.testing.assert_allclose(weights, expected, rtol=1e-5)
    # one temperature for all is the softmax up to its normaliser
    same = class_weights(torch.tensor([[0.9, 0.8, 0.5]]), [0.1, 0.1])[..., 0]
    torch.testing.assert_close(same / same.sum(), vote_weights(torch.tensor([[0.9, 0.8, 0.5]]), "attention", 0.1))


def test_votes_of_classes_by_hand_without_ignored_pixels() -> None:
    weights = torch.tensor([[[0.5, 1.0], [0.3, 0.25]]])  # [Q=1, k=2, C=2]
    labels = torch.tensor([[[0, 1, 255, 1], [1, 1, 0, 255]]], dtype=torch.uint8)
    assert class_votes(weights, labels, 2).tolist() == [
        [[0.5, 0.25], [0.0, 1.25], [pytest.approx(0.3), 0.0], [0.0, 1.0]]
    ]


@pytest.mark.parametrize(
    ("votes", "thresholds", "winner"),
    [
        ([1.0, 3.0, 2.0], [0, 0, 0], 1),
        ([1.0, 3.0, 2.0], [0, 0.5, 0], 1),  # exactly its share suffices
        ([1.0, 3.0, 2.0], [0, 0.51, 0], 2),  # the runner-up
        ([1.0, 3.0, 2.0], [0, 0.51, 0.4], 0),  # then the background
        ([3.0, 2.0, 1.0], [0.6, 0, 0], 1),  # the background may need a share too
        ([3.0, 2.0, 1.0], [0.6, 0.5, 0.5], 0),  # nobody may: background
        ([0.0, 0.0, 0.0], [0.6, 0.5, 0.5], 0),  # nobody votes: background
        ([0.0, 0.0, 4.0], [0.0, 0.0, 1.0], 2),
    ],
)
def test_who_wins_by_hand(votes: list[float], thresholds: list[float], winner: int) -> None:
    assert winners(torch.tensor(votes), thresholds) == winner


def brute_force(model: RetrievalModel, image: torch.Tensor) -> np.ndarray:
    """Return the class map, one patch, one neighbour and one pixel after the other."""
    bank, result = model.bank, np.zeros(SIZE, dtype=np.uint8)
    counts = bank.counts.tolist() or [1] * len(bank)
    temperatures = [model.class_temperatures.get(name, model.temperature) for name in CLASSES]
    for index, query in enumerate(model.extract(image[None])[0]):
        similarities = (bank.embeddings @ query).tolist()
        votes = np.zeros((64, 3))
        for row in sorted(range(len(bank)), key=lambda i: -similarities[i])[: model.k]:
            cast = counts[row] ** 0.5
            for pixel, label in enumerate(bank.labels[row].tolist()):
                if label != 255:
                    weight = cast * np.exp((similarities[row] - max(similarities)) / temperatures[label])
                    votes[pixel if model.labels == "complete" else slice(None), label] += weight
        shares = votes / np.maximum(votes.sum(1, keepdims=True), 1e-12)
        for label, name in enumerate(CLASSES):
            shares[shares[:, label] < model.class_thresholds.get(name, 0), label] = -1
        y, x = divmod(index, 6)
        result[8 * y : 8 * y + 8, 8 * x : 8 * x + 8] = shares.argmax(1).reshape(8, 8)
    return result


@pytest.mark.parametrize("budget", [None, 30])
@pytest.mark.parametrize("labels", ["complete", "average"])
def test_class_maps_equal_brute_force(tiny_encoder: dict, labels: str, budget: int | None) -> None:
    rules = {"class_temperatures": {"wire": 0.2}, "class_thresholds": {"wire": 0.45, "ball": 0.4}}
    model = make_model(tiny_encoder, budget, labels=labels, **rules)
    image = torch.rand(3, *SIZE)
    mask = model(image[None]).pred_mask[0, 0].numpy()
    assert (mask != brute_force(model, image)).mean() <= (0.01 if labels == "complete" else 1 / 24)
    model.class_thresholds, model.class_temperatures = {}, {}
    assert (model(image[None]).pred_mask[0, 0].numpy() != mask).mean() > 0.02  # the rules changed something


def test_explanations_weigh_a_vote_as_its_class_does(tiny_encoder: dict) -> None:
    model = make_model(tiny_encoder, class_temperatures={"wire": 0.2, "background": 0.02})
    image = torch.rand(3, *SIZE)
    votes = explain(model, image, (10, 20))
    temperatures = {"wire": 0.2, "background": 0.02, "ball": 0.05}
    weights = [np.exp((vote.similarity - votes[0].similarity) / temperatures[vote.label]) for vote in votes]
    np.testing.assert_allclose([vote.weight for vote in votes], np.array(weights) / sum(weights), rtol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"class_temperatures": {"wire": 0.0}}, "the temperature 0.0 of 'wire' must be greater than 0"),
        ({"class_thresholds": {"wire": 1.2}}, "the threshold 1.2 of 'wire' must be a share of the vote, 0 to 1"),
        (
            {"class_temperatures": {"wire": 0.1}, "aggregation": "majority"},
            "act in the softmax of 'attention', but aggregation is 'majority'",
        ),
    ],
)
def test_rules_that_are_refused(tiny_encoder: dict, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AOISSLRetrieval(encoder=tiny_encoder, pretrained=False, image_size=SIZE, **arguments)


@pytest.mark.parametrize("argument", ["class_temperatures", "class_thresholds"])
def test_rules_for_classes_that_the_data_has_not(tiny_encoder: dict, argument: str) -> None:
    model = AOISSLRetrieval(encoder=tiny_encoder, pretrained=False, image_size=SIZE, **{argument: {"glue": 0.3}})
    with pytest.raises(ValueError, match=rf"{argument} names the classes \['glue'\].* Its classes: \['background'"):
        model.set_dataset(CLASSES, FileFormat())
