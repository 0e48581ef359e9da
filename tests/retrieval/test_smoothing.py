# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Smoothed votes: the filter and the masks against numpy, explanations against the masks, and the exported graph."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from editable_models import CLASSES, SIZE, array_of, check_equal, labelled
from editable_models import make_model as make_editable

from anomalib_aoissl import AOISSLRetrieval
from anomalib_aoissl.encoder import PatchEncoder
from anomalib_aoissl.inference import SegmentationOpenVINOInferencer
from anomalib_aoissl.retrieval.calibration import calibrate_on_bank, without_images
from anomalib_aoissl.retrieval.explaining import explain, explain_region
from anomalib_aoissl.retrieval.patches import patches_to_image
from anomalib_aoissl.retrieval.smoothing import class_maps, map_patches, smoothed
from anomalib_aoissl.retrieval.torch_model import RetrievalModel
from anomalib_aoissl.risk_coverage import histogram


def filtered(plane: np.ndarray, times: int) -> np.ndarray:
    """Return a plane after so many passes of 1-2-1, down and across, a sum over nine pixels at a time."""
    for _ in range(times):
        padded, weights = np.pad(plane, 1, mode="edge"), np.outer([1, 2, 1], [1, 2, 1]) / 16
        around = [(y, x) for y in range(3) for x in range(3)]
        height, width = plane.shape
        plane = sum(weights[y, x] * padded[y : y + height, x : x + width] for y, x in around)
    return plane


def make_model(tiny_encoder: dict, **arguments: Any) -> RetrievalModel:
    encoder = PatchEncoder(tiny_encoder, image_size=SIZE, pretrained=False)
    model = RetrievalModel(encoder, k=5, temperature=0.1, **arguments).eval()
    masks = torch.randint(0, 3, (3, *SIZE)).to(torch.uint8)
    model.bank.class_names = list(CLASSES)
    model.fill(torch.rand(3, 3, *SIZE), masks, ["a", "a", "b"], ["x", "y", "z"])
    model.bank.finish()
    return model


def shares_of(model: RetrievalModel, image: torch.Tensor) -> np.ndarray:
    """Return the shares of the vote ``[H, W, C]`` that the model has of one image."""
    _, scores = model.answer_with_scores(model.embed(image[None]))
    scores = scores / scores.sum(dim=-1, keepdim=True)
    planes = [patches_to_image(scores[None, ..., c], model.grid_size, model.patch_size)[0] for c in range(3)]
    return torch.stack(planes, dim=-1).numpy()


@pytest.mark.parametrize("times", [0, 1, 3])
def test_the_filter_is_the_binomial_one(times: int) -> None:
    maps = torch.rand(2, 3, 6, 9)
    result = smoothed(maps, times)
    expected = [[filtered(plane.numpy().astype(np.float64), times) for plane in planes] for planes in maps]
    np.testing.assert_allclose(result, expected, atol=1e-6)
    torch.testing.assert_close(result.sum(dim=(2, 3)), maps.sum(dim=(2, 3)))  # what explanations build on


def test_patches_become_maps_and_back() -> None:
    patches = torch.rand(2 * 12, 3, 8 * 4)
    maps = class_maps(patches, (3, 4), (8, 4))
    for index in range(3):
        expected = patches_to_image(patches[:, index].reshape(2, 12, 32), (3, 4), (8, 4))
        torch.testing.assert_close(maps[:, index], expected)
    torch.testing.assert_close(map_patches(maps, (3, 4), (8, 4)), patches)


@pytest.mark.parametrize("query_shifts", [1, 2])
def test_masks_are_those_of_the_filtered_shares(tiny_encoder: dict, query_shifts: int) -> None:
    model = make_model(tiny_encoder, query_shifts=query_shifts)
    image = torch.rand(3, *SIZE)
    plain = model(image[None])
    expected = np.stack([filtered(plane, 2) for plane in shares_of(model, image).transpose(2, 0, 1)])
    model.smoothing = 2
    result = model(image[None])
    assert (result.pred_mask[0, 0].numpy() == expected.argmax(0)).mean() > 0.998
    assert (result.pred_mask != plain.pred_mask).any()
    torch.testing.assert_close(result.anomaly_map, plain.anomaly_map)
    batch, scores = model.answer_with_scores(model.embed(image[None]))
    uncertainty = 1 - expected.max(0) * (1 - result.anomaly_map[0, 0].numpy())
    np.testing.assert_allclose(model.uncertainty(batch, scores)[0, 0], uncertainty, atol=1e-5)


def test_averaged_labels_stay_whole_patches(tiny_encoder: dict) -> None:
    model = make_model(tiny_encoder, labels="average", smoothing=1)
    blocks = model(torch.rand(1, 3, *SIZE)).pred_mask.reshape(4, 8, 6, 8).permute(0, 2, 1, 3).flatten(2)
    assert bool((blocks == blocks[..., :1]).all())


@pytest.mark.parametrize("query_shifts", [1, 4])
def test_explanations_have_the_shares_of_the_mask(tiny_encoder: dict, query_shifts: int) -> None:
    model = make_model(tiny_encoder, query_shifts=query_shifts, smoothing=1)
    image = torch.rand(3, *SIZE)
    shares = shares_of(model, image)
    for pixel in [(0, 0), (7, 8), (31, 47), (15, 20), (8, 0), (4, 4)]:
        sums: Counter[str] = Counter()
        for vote in explain(model, image, pixel):
            sums[vote.label] += vote.weight
        assert [sums[name] for name in CLASSES] == pytest.approx(shares[pixel].tolist(), abs=1e-5)
        if query_shifts == 1:
            region = torch.zeros(SIZE, dtype=torch.bool)
            region[pixel] = True
            tally = explain_region(model, image, region).tally
            assert [tally.get(name, 0) for name in CLASSES] == pytest.approx(shares[pixel].tolist(), abs=1e-5)


def test_calibration_on_the_bank_smooths_within_each_patch(tiny_encoder: dict) -> None:
    model = make_model(tiny_encoder, smoothing=1)
    assert calibrate_on_bank(model) == 3
    pixels = torch.zeros_like(model.abstention.pixels)
    for index, name in enumerate("xyz"):
        view = without_images(model, [name])
        for query in model.bank.embeddings[model.bank.image_ids == index]:
            similarities, rows, weights = view.vote(query[None])
            votes = view.class_votes(weights, rows)[0].reshape(8, 8, 3).numpy()
            best = np.stack([filtered(votes[..., c] / votes.sum(-1), 1) for c in range(3)]).max(0)
            pixels += histogram(torch.tensor(1 - best * float(similarities[0, 0]), dtype=torch.float32)).to(pixels)
    # Rounding moves a pixel to the next of the histogram's bins here and there.
    assert int((pixels.cumsum(0) - model.abstention.pixels.cumsum(0)).abs().max()) <= 20
    assert int(pixels.sum()) == 3 * SIZE[0] * SIZE[1]


@pytest.mark.parametrize("arguments", [{}, {"smoothing": 3}, {"retrieval": "images", "smoothing": 2}])
def test_the_exported_graph_smooths_also_for_a_new_class(arguments: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    model, names = make_editable(2, seed=1, **arguments), [*CLASSES, "crack"]
    inferencer = SegmentationOpenVINOInferencer(model.to_openvino(tmp_path))
    check_equal(inferencer, model)
    taught = make_editable(1, seed=5, class_names=names, **arguments)
    taught.model.bank.take(model.model.bank.content())
    taught.model.bank.class_names = list(names)
    pictures, masks = labelled(1, seed=3, classes=4)
    masks[:, 20:] = 3
    taught.add(pictures, masks, ["new"], ["first"])
    inferencer.adapt(array_of(pictures[0]), masks[0].numpy(), device="new", name="first", class_names=names)
    check_equal(inferencer, taught)
    inferencer.threshold = 0.5  # has the votes themselves read out of the graph
    part = pictures[:, :, : SIZE[0], : SIZE[1]]
    expected = taught.predictions(taught.pre_processor(part))["uncertainty"][0]
    np.testing.assert_allclose(inferencer.predict(array_of(part[0])).uncertainty, expected, atol=1e-4)


@pytest.mark.parametrize("times", [-1, True, 1.5])
def test_what_is_no_number_of_passes_is_refused(tiny_encoder: dict, times: Any) -> None:
    with pytest.raises(ValueError, match=rf"smoothing={times} must be an integer from 0"):
        AOISSLRetrieval(encoder=tiny_encoder, pretrained=False, image_size=SIZE, smoothing=times)
