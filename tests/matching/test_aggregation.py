# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Aggregation by name: the weights by hand, the masks by brute force, and the same from the exported graph."""

from pathlib import Path

import numpy as np
import pytest
import torch

from anomalib_aoissl import AOISSLRetrieval
from anomalib_aoissl.deployment.files.model_file import core
from anomalib_aoissl.encoder.vit import PatchEncoder
from anomalib_aoissl.matching.aggregation import AGGREGATIONS, repetitions, vote_weights
from anomalib_aoissl.retrieval.memory.memory_bank import MemoryBank
from anomalib_aoissl.retrieval.options import VoteOptions
from anomalib_aoissl.retrieval.torch_model import RetrievalModel

SIZE = (32, 48)


def test_weights_by_hand() -> None:
    similarities = torch.tensor([[0.9, 0.6, -0.3]])
    torch.testing.assert_close(vote_weights(similarities, "similarity", 0.1), torch.tensor([[0.9, 0.6, 1e-6]]))
    raised = torch.tensor([[9.0, 6.0, -3.0]]).exp()
    torch.testing.assert_close(vote_weights(similarities, "attention", 0.1), raised / raised.sum())


def test_repetitions_by_hand() -> None:
    counts = torch.tensor([[4, 9, 1, 16], [1, 1, 1, 1]])
    assert repetitions(counts, 6, "similarity").tolist() == [[2, 3, 1, 0], [1, 1, 1, 1]]
    assert repetitions(counts, 3, "similarity").tolist() == [[2, 1, 0, 0], [1, 1, 1, 0]]
    assert repetitions(counts, 3, "attention").tolist() == [[2, 3, 1, 4], [1, 1, 1, 1]]


def make_model(tiny_encoder: dict, aggregation: str, **bank: object) -> RetrievalModel:
    encoder = PatchEncoder(tiny_encoder, image_size=SIZE, pretrained=False)
    model = RetrievalModel(
        encoder,
        VoteOptions(7, 0.05, aggregation),
        bank=MemoryBank(encoder.embed_dim, encoder.patch_size, **bank),
    )
    masks = torch.randint(0, 3, (4, 4, 6)).repeat_interleave(8, 1).repeat_interleave(8, 2)
    noise = torch.randint(0, 3, masks.shape)
    masks = torch.where(torch.rand(masks.shape) < 0.3, noise, masks).to(torch.uint8)
    masks[0, :5, :5] = 255
    model.fill(torch.rand(4, 3, *SIZE), masks, ["a", "a", "b", "b"], [f"image{i}" for i in range(4)])
    model.bank.finish()
    model.bank.class_names = ["background", "wire", "ball"]
    return model


def brute_force(model: RetrievalModel, image: torch.Tensor) -> np.ndarray:
    """Return the votes ``[H, W, C]``, one patch, one neighbour and one pixel after the other."""
    bank, result = model.bank, np.zeros((*SIZE, 3))
    counts = bank.counts.tolist() or [1] * len(bank)
    for index, query in enumerate(model.read(image[None]).embeddings[0]):
        similarities = (bank.embeddings.float() @ query).tolist()
        votes, left = np.zeros((64, 3)), float(model.vote_options.k)
        for entry in sorted(range(len(bank)), key=lambda i: -similarities[i])[: model.vote_options.k]:
            cast = counts[entry] ** 0.5
            if model.vote_options.aggregation == "attention":
                cast *= np.exp((similarities[entry] - max(similarities)) / model.vote_options.temperature)
            else:  # until k votes are cast
                cast = min(cast, left)
                left -= cast
                cast *= max(similarities[entry], 0)
            for pixel, label in enumerate(bank.labels[entry].tolist()):
                if label != 255:
                    votes[pixel, label] += cast
        y, x = divmod(index, 6)
        result[8 * y : 8 * y + 8, 8 * x : 8 * x + 8] = votes.reshape(8, 8, 3)
    return result


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("budget", [None, 40])
def test_class_maps_equal_brute_force(tiny_encoder: dict, aggregation: str, budget: int | None) -> None:
    model = make_model(tiny_encoder, aggregation, budget=budget)
    assert len(model.bank.counts) == (budget or 0)
    image = torch.rand(3, *SIZE)
    mask = model(image[None]).pred_mask[0, 0].numpy()
    assert len(np.unique(mask)) == 3
    votes = brute_force(model, image)
    given = np.take_along_axis(votes, mask[..., None].astype(int), axis=-1)[..., 0]
    np.testing.assert_allclose(given, votes.max(axis=-1), rtol=1e-5)  # equal votes may go either way


@pytest.mark.parametrize(
    ("vote", "bank"), [({}, {}), ({"aggregation": "similarity"}, {"precision": "fp16", "size": 60})]
)
def test_the_exported_graph_gives_the_same_masks(tiny_encoder: dict, tmp_path: Path, vote: dict, bank: dict) -> None:
    encoder = {**tiny_encoder, "pretrained": False}
    model = AOISSLRetrieval(encoder, image_size=SIZE, head=None, vote={"k": 7, **vote}, bank=bank).eval()
    masks = torch.randint(0, 3, (4, *SIZE)).to(torch.uint8)
    model.model.fill(torch.rand(4, 3, *SIZE), masks, ["a"] * 4, [f"image{i}" for i in range(4)])
    model.set_dataset(["background", "wire", "ball"], model.file_format)
    model.fit()
    assert len(model.model.bank) == bank.get("size", 4 * 24)
    path = model.to_onnx(tmp_path)
    compiled = core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for batch in (1, 3):
        images = torch.rand(batch, 3, 40, 60)
        expected, outputs = model(images), compiled(images.numpy())
        assert (outputs["pred_mask"] == expected.pred_mask.numpy()).mean() > 0.995
        np.testing.assert_allclose(outputs["anomaly_map"], expected.anomaly_map.numpy(), atol=1e-5)
