# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Retrieval against brute force: every pixel's vote counted by hand, the nearest rows found by scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from anomalib_aoissl.encoder.pyramid import PyramidEncoder
from anomalib_aoissl.encoder.vit import PatchEncoder
from anomalib_aoissl.matching import searching
from anomalib_aoissl.matching.aggregation import class_votes
from anomalib_aoissl.retrieval.options import VoteOptions
from anomalib_aoissl.retrieval.torch_model import RetrievalModel

SIZE = (32, 48)


def make_model(tiny_encoder: dict, images: int = 2, **arguments: object) -> RetrievalModel:
    model = RetrievalModel(PatchEncoder(tiny_encoder, image_size=SIZE, pretrained=False), VoteOptions(**arguments))
    generator = torch.Generator().manual_seed(5)
    masks = torch.randint(0, 3, (images, *SIZE), generator=generator).to(torch.uint8)
    masks[0, :8, :8] = 255  # a patch that is ignored whole
    masks[0, 8:12, :8] = 255
    pictures = torch.rand(images, 3, *SIZE, generator=generator)
    model.fill(pictures, masks, ["a"] * images, [f"image{i}" for i in range(images)])
    model.bank.finish()
    model.bank.class_names = ["background", "wire", "ball"]
    return model


def brute_force(model: RetrievalModel, image: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return the class map and the patch novelty of one image, one patch and one pixel after the other."""
    queries = torch.nn.functional.normalize(model.encoder(image[None])[0], dim=-1).numpy()
    keys, labels = model.bank.embeddings.numpy(), model.bank.labels.numpy()
    rows, columns = model.encoder.grid_size
    classes, novelty = np.zeros(SIZE, dtype=np.uint8), np.zeros((rows, columns))
    for index, query in enumerate(queries):
        similarities = keys @ query
        nearest = np.argsort(-similarities)[: model.vote_options.k]
        weights = np.exp(similarities[nearest] / model.vote_options.temperature)
        weights /= weights.sum()
        row, column = divmod(index, columns)
        novelty[row, column] = 1 - similarities.max()
        for pixel in range(64):
            votes = [weights[labels[nearest, pixel] == c].sum() for c in range(3)]
            classes[row * 8 + pixel // 8, column * 8 + pixel % 8] = int(np.argmax(votes))
    return classes, novelty


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.02), (5, 0.02), (30, 0.5), (1000, 0.1)])
def test_class_map_and_novelty_equal_brute_force(tiny_encoder: dict, k: int, temperature: float) -> None:
    model = make_model(tiny_encoder, k=k, temperature=temperature)
    image = torch.rand(3, *SIZE)
    classes, novelty = brute_force(model, image)
    result = model(image[None])
    assert result.pred_mask.dtype == torch.uint8
    assert (result.pred_mask[0, 0].numpy() == classes).mean() > 0.999
    assert result.pred_score.item() == pytest.approx(novelty.max(), abs=1e-5)
    upsampled = result.anomaly_map[0, 0].reshape(4, 8, 6, 8)[:, 3:5, :, 3:5].mean(dim=(1, 3)).numpy()
    inner = np.s_[1:-1, 1:-1]
    # in each axis the two middle pixels lie 1/16 of a patch from its centre: 15/16 of itself, 1/32 of each neighbour
    centre = 15 / 16 * novelty[1:-1] + (novelty[:-2] + novelty[2:]) / 32
    expected = 15 / 16 * centre[:, 1:-1] + (centre[:, :-2] + centre[:, 2:]) / 32
    np.testing.assert_allclose(upsampled[inner], expected, atol=1e-5)


def test_a_training_image_gives_back_its_own_mask(tiny_encoder: dict) -> None:
    model = RetrievalModel(PatchEncoder(tiny_encoder, image_size=SIZE, pretrained=False), VoteOptions(1))
    picture, mask = torch.rand(1, 3, *SIZE), torch.randint(0, 3, (1, *SIZE)).to(torch.uint8)
    model.fill(picture, mask, ["a"], ["x"])
    model.bank.finish()
    model.bank.class_names = ["background", "wire", "ball"]
    result = model(picture)
    assert torch.equal(result.pred_mask[:, 0], mask)
    assert result.pred_score.item() == pytest.approx(0, abs=1e-5)


def test_of_a_network_with_zeros_around_the_image_the_patches_inside_say_how_novel_its_border_is() -> None:
    size = (48, 64)  # 6 x 8 patches
    encoder = PyramidEncoder("resnet10t", image_size=size, pretrained=False)
    model = RetrievalModel(encoder, VoteOptions(1))
    images = torch.rand(2, 3, *size)
    model.fill(images[:1], torch.zeros(1, *size, dtype=torch.uint8), ["a"], ["x"])
    model.bank.finish()
    model.bank.class_names = ["background"]
    keys, queries = (model.read(image[None]).embeddings[0].numpy() for image in images)
    inside = (1 - (queries @ keys.T).max(axis=1)).reshape(6, 8)[1:-1, 1:-1]
    novelty = model.ask(torch.from_numpy(queries)[None])[1][0, 0].numpy()
    np.testing.assert_allclose(novelty, np.pad(inside, 1, mode="edge"), atol=1e-5)
    assert model(images[1:]).pred_score.item() == pytest.approx(inside.max(), abs=1e-5)


def test_a_batch_equals_its_images_one_by_one(tiny_encoder: dict) -> None:
    model = make_model(tiny_encoder)
    images = torch.rand(3, 3, *SIZE)
    batch = model(images)
    for index in range(3):
        single = model(images[index : index + 1])
        assert torch.equal(single.pred_mask[0], batch.pred_mask[index])
        torch.testing.assert_close(single.anomaly_map[0], batch.anomaly_map[index])
        torch.testing.assert_close(single.pred_score[0], batch.pred_score[index])


@pytest.mark.parametrize("chunk", [7, 50, 1000])
def test_search_equals_scikit_learn_for_any_chunk(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "BANK_CHUNK", chunk)
    keys = torch.nn.functional.normalize(torch.randn(100, 16), dim=-1)
    queries = torch.nn.functional.normalize(torch.randn(20, 16), dim=-1)
    similarities, rows = searching.search(queries, keys, 9)
    distances, expected = NearestNeighbors(n_neighbors=9, algorithm="brute").fit(keys).kneighbors(queries)
    assert rows.tolist() == expected.tolist()
    np.testing.assert_allclose(similarities, 1 - distances**2 / 2, atol=1e-5)


def test_votes_by_hand_and_ignored_pixels_never_vote() -> None:
    labels = torch.tensor([[[1, 255, 255, 2], [2, 2, 255, 1], [2, 1, 255, 1]]], dtype=torch.uint8)
    weights = torch.tensor([[0.5, 0.3, 0.2]])
    # pixel 0: class 1 has 0.5 and class 2 has 0.5, the smaller index wins; 1: 2 with 0.3 against 0.2; 2: nobody votes
    assert class_votes(weights, labels, 3).argmax(dim=1).tolist() == [[1, 2, 0, 1]]


def test_the_encoder_is_frozen_and_stays_in_evaluation_mode(tiny_encoder: dict) -> None:
    model = make_model(tiny_encoder).train()
    assert model.training
    assert not model.encoder.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_an_empty_bank_raises(tiny_encoder: dict) -> None:
    encoder = PatchEncoder(tiny_encoder, image_size=SIZE, pretrained=False)
    with pytest.raises(RuntimeError, match="The memory bank is empty"):
        RetrievalModel(encoder)(torch.rand(1, 3, *SIZE))
