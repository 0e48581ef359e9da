# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

import itertools
import math

import numpy as np
import pytest
import torch

from anomalib_aoissl.encoder.base import Encoder
from anomalib_aoissl.pretraining.watching.measures import probe_mean_iou, spectrum_entropy


class PixelEncoder(Encoder):
    """Each patch's own pixels."""

    image_size, patch_size = (16, 24), (4, 4)
    mean = std = (0.5,)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.unfold(images, 4, stride=4).transpose(1, 2)


def _image(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    image = torch.rand(1, 16, 24, generator=random)
    return image, (image[0] > 0.5).to(torch.uint8) + (image[0] > 0.8).to(torch.uint8)


def _patches(image: torch.Tensor, mask: torch.Tensor) -> list[tuple[np.ndarray, np.ndarray]]:
    found = []
    for top, left in itertools.product(range(0, 16, 4), range(0, 24, 4)):
        values = ((image[:, top : top + 4, left : left + 4] - 0.5) / 0.5).numpy().ravel().astype(np.float64)
        found.append((values / np.linalg.norm(values), mask[top : top + 4, left : left + 4].numpy().ravel()))
    return found


def _guess(values: np.ndarray, rows: list, pixel: int, classes: int, k: int, temperature: float) -> int:
    similarity = np.array([values @ row for row, _ in rows])
    votes = np.zeros(classes + 256)
    for index in np.argsort(-similarity)[:k]:
        votes[rows[index][1][pixel]] += np.exp((similarity[index] - similarity.max()) / temperature)
    return int(votes[:classes].argmax())


def _brute_force(bank: list, queries: list, classes: int, k: int, temperature: float) -> float:
    """Mean IoU by loops over patches and pixels."""
    rows = [entry for item in bank for entry in _patches(*item)]
    hits, union = np.zeros(classes), np.zeros(classes)
    for values, truth in (entry for item in queries for entry in _patches(*item)):
        for pixel in np.flatnonzero(truth != 255):
            guess = _guess(values, rows, int(pixel), classes, k, temperature)
            hits[guess] += guess == truth[pixel]
            union[list({guess, int(truth[pixel])})] += 1
    return float(np.mean([hits[c] / union[c] for c in range(classes) if union[c]]))


@pytest.mark.parametrize("k", [1, 5, 100])
def test_the_probe_is_retrieval_by_brute_force(k: int) -> None:
    bank, queries = [_image(0), _image(1)], [_image(2), _image(3)]
    bank[0][1][:3, :5] = 255
    queries[0][1][5:9] = 255
    probe = probe_mean_iou(PixelEncoder(), bank, queries, num_classes=3, neighbours=k, temperature=0.1)
    assert probe.mean_iou == pytest.approx(_brute_force(bank, queries, 3, k, 0.1), abs=1e-6)
    assert len(probe.class_iou) == 3


def test_the_same_images_are_found_again() -> None:
    items = [_image(0), _image(1)]
    assert probe_mean_iou(PixelEncoder(), items, items, num_classes=3, temperature=0.001).mean_iou == 1.0


def test_a_class_that_never_occurs_does_not_count() -> None:
    items = [_image(0)]
    probe = probe_mean_iou(PixelEncoder(), items, items, num_classes=7, temperature=0.001)
    assert probe.mean_iou == 1.0
    assert probe.class_iou[3:] == (0, 0, 0, 0)


@pytest.mark.parametrize("rank", [1, 3, 16])
def test_effective_rank_of_known_spectra(rank: int) -> None:
    generator = torch.Generator().manual_seed(0)
    left, _ = torch.linalg.qr(torch.randn(200, 16, generator=generator, dtype=torch.float64))
    left, _ = torch.linalg.qr(left - left.mean(dim=0))
    embeddings = left[:, :rank] @ torch.linalg.qr(torch.randn(16, 16, dtype=torch.float64)).Q[:rank]
    assert math.exp(spectrum_entropy(embeddings + 3.0)) == pytest.approx(rank, rel=1e-3)


def test_entropy_is_that_of_the_singular_values() -> None:
    embeddings = torch.randn(50, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = np.linalg.svd((embeddings - embeddings.mean(0)).numpy(), compute_uv=False)
    shares = values / values.sum()
    assert spectrum_entropy(embeddings) == pytest.approx(-(shares * np.log(shares)).sum(), abs=1e-9)


def test_equal_embeddings_have_no_entropy() -> None:
    assert spectrum_entropy(torch.full((30, 8), 0.3)) == 0
    assert spectrum_entropy(torch.zeros(30, 8)) == 0
