# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Whole images retrieved and voting pixel by pixel: against a loop, and what does not go with it."""

import numpy as np
import pytest
import torch

from anomalib_aoissl import AOISSLRetrieval
from anomalib_aoissl.encoder.vit import PatchEncoder
from anomalib_aoissl.retrieval.asking.explaining import explain_region
from anomalib_aoissl.retrieval.options import VoteOptions
from anomalib_aoissl.retrieval.torch_model import RetrievalModel

SIZE = (32, 48)


@pytest.fixture
def model(tiny_encoder: dict) -> RetrievalModel:
    """Return a model that compares whole images."""
    encoder = PatchEncoder(tiny_encoder, image_size=SIZE, pretrained=False)
    model = RetrievalModel(encoder, VoteOptions(3, 0.05, level="images"))
    model.bank.class_names = ["background", "wire", "ball"]
    return model


def fill(model: RetrievalModel) -> tuple[torch.Tensor, torch.Tensor]:
    """Fill the bank with random pictures and masks, and return them."""
    pictures, masks = torch.rand(5, 3, *SIZE), torch.randint(0, 3, (5, *SIZE)).to(torch.uint8)
    masks[1, :, :9] = 255
    model.fill(pictures, masks, list("aabbb"), list("vwxyz"))
    model.bank.finish()
    return pictures, masks


def embeddings(model: RetrievalModel, images: torch.Tensor) -> np.ndarray:
    """Return the unit embeddings of images by timm's own features after the last block."""
    vit = model.encoder.vit
    with torch.no_grad():
        tokens = vit.forward_features(images)
    return torch.nn.functional.normalize(tokens[:, 1:].mean(dim=1), dim=-1).numpy()


def test_masks_of_the_nearest_images_vote_pixel_by_pixel(model: RetrievalModel) -> None:
    pictures, masks = fill(model)
    assert model.bank.labels.shape == (5, 32 * 48)
    np.testing.assert_allclose(model.bank.embeddings, embeddings(model, pictures), atol=1e-5)
    images = torch.rand(2, 3, *SIZE)
    result = model(images)
    for index, query in enumerate(embeddings(model, images)):
        similarities = embeddings(model, pictures) @ query
        votes = np.zeros((*SIZE, 3))
        for entry in np.argsort(-similarities)[:3]:
            for label in range(3):
                votes[..., label] += np.exp(similarities[entry] / 0.05 - 20) * (masks[entry].numpy() == label)
        assert (result.pred_mask[index, 0].numpy() == votes.argmax(-1)).mean() > 0.998
        np.testing.assert_allclose(result.anomaly_map[index], 1 - similarities.max(), atol=1e-5)
        assert float(result.pred_score[index]) == pytest.approx(1 - similarities.max(), abs=1e-5)


def test_a_labelled_image_finds_its_own_mask(model: RetrievalModel) -> None:
    pictures, masks = fill(model)
    model.vote_options = VoteOptions(1, 0.05, level="images")
    assert torch.equal(model(pictures[2:]).pred_mask[:, 0], masks[2:])
    region = torch.zeros(SIZE, dtype=torch.bool)
    region[20, 40] = True
    (vote,) = explain_region(model, pictures[3], region)[0].votes
    assert (vote.image, vote.device, vote.box) == ("y", "b", (0, 0, 32, 48))


def test_what_does_not_go_with_whole_images(tiny_encoder: dict) -> None:
    def make(**arguments: object) -> AOISSLRetrieval:
        return AOISSLRetrieval(encoder={**tiny_encoder, "pretrained": False}, image_size=SIZE, **arguments)

    with pytest.raises(ValueError, match=r"vote\.level='boxes' must be one of \['patches', 'images'\]"):
        make(vote={"level": "boxes"})
    with pytest.raises(ValueError, match=r"vote\.level='images' lets whole images vote, without the pixel head"):
        make(vote={"level": "images"}, head="pixel")
    whole = make(vote={"level": "images"}, head=None, bank={"size": "1MB"})
    assert whole.model.bank.budget == int(1e6 / (32 * 4 + 32 * 48 + 16))
