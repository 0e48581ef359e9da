# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The linear probe: ridge regression against scikit-learn, its views and targets, and a head that starts from it."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch.nn import functional
from torchvision import tv_tensors
from torchvision.transforms import v2

from anomalib_aoissl.data.items import SegmentationItem
from anomalib_aoissl.segmenter.heads import HEADS, LinearHead, build_head, linear_part
from anomalib_aoissl.segmenter.probe import (
    RidgeRegression,
    cell_targets,
    fit_probe,
    plain_samples,
    shifted_views,
)


def test_the_regression_is_scikit_learn_s_ridge_on_standardised_features() -> None:
    random = np.random.default_rng(0)
    features = random.normal(size=(200, 6)) * [1, 5, 0.1, 1, 2, 1] + 3
    targets = features @ random.normal(size=(6, 3)) + random.normal(size=(200, 3))
    weights = random.uniform(0, 2, 200)
    regression = RidgeRegression(6, 3)
    for part in (slice(0, 50), slice(50, 200)):
        regression.add(*(torch.from_numpy(rows[part]).float() for rows in (features, targets, weights)))
    weight, bias = regression.solve(20.0)
    mean = np.average(features, axis=0, weights=weights)
    deviation = np.average((features - mean) ** 2, axis=0, weights=weights) ** 0.5
    ridge = Ridge(alpha=20.0 * weights.sum() / 200).fit(features / deviation, targets, sample_weight=weights)
    np.testing.assert_allclose(weight.numpy(), ridge.coef_ / deviation, rtol=2e-3, atol=1e-4)
    np.testing.assert_allclose(bias.numpy(), ridge.intercept_, rtol=2e-3, atol=1e-2)


def test_rows_without_weight_give_zero() -> None:
    regression = RidgeRegression(2, 1)
    regression.add(torch.ones(3, 2), torch.ones(3, 1), torch.zeros(3))
    weight, bias = regression.solve(20.0)
    assert not weight.any()
    assert not bias.any()


@pytest.mark.parametrize("size", [(24, 24), (16, 32)])
def test_views_keep_image_and_mask_together(size: tuple[int, int]) -> None:
    mask = torch.arange(size[0] * size[1]).reshape(1, *size) % 200
    image = mask[:, None].float()
    views = list(shifted_views(image, mask, 9, (8, 8)))
    assert torch.equal(views[0][0], image)
    assert torch.equal(views[0][1], mask)
    seen = set()
    for view, labels in views:
        assert view.shape == image.shape
        known = labels != 255
        assert 0.4 < known.float().mean() <= 1
        assert torch.equal(view[:, 0][known], labels[known].float())
        seen.add(tuple(labels.flatten().tolist()))
    assert len(seen) == 9


def test_targets_are_shares_of_labelled_pixels() -> None:
    mask = torch.full((1, 4, 8), 255)
    mask[0, :2, :2] = torch.tensor([[0, 1], [1, 1]])  # a cell of the first patch; its other cells have no label
    mask[0, :2, 6:] = 2  # the second patch: one cell of class 2, one of class 0, half of a third
    mask[0, 2:, 4:6] = 0
    mask[0, 2, 6:] = 1
    targets, shares = cell_targets(mask, 3, (4, 4), (2, 2))
    cells = targets.reshape(2, 3, 2, 2)  # patch, class, row, column
    torch.testing.assert_close(cells[0], torch.tensor([0.25, 0.75, 0.0])[:, None, None].expand(3, 2, 2))
    assert cells[1, :, 0, 1].tolist() == [0, 0, 1]
    assert cells[1, :, 1, 0].tolist() == [1, 0, 0]
    assert cells[1, :, 1, 1].tolist() == [0, 1, 0]
    torch.testing.assert_close(cells[1, :, 0, 0], torch.tensor([0.4, 0.2, 0.4]))  # as in the patch
    torch.testing.assert_close(shares, torch.tensor([[1, 3, 0], [4, 2, 4]]) / 16)


def test_the_linear_head_puts_each_cell_in_its_place() -> None:
    head = LinearHead(6, 1, (8, 16), 2)
    assert head.cells == (8, 8)
    with torch.no_grad():
        head.classify.weight[:, 0, 0, 0] = torch.arange(2 * 8 * 8).float()
    maps = torch.zeros(1, 6, 2, 3)
    maps[0, 0, 1, 2] = 1
    scores = head([maps]).detach()
    assert scores.shape == (1, 2, 16, 24)
    torch.testing.assert_close(scores[0, :, 8:, 16:], torch.arange(128).float().reshape(2, 8, 8))
    assert not scores[..., :8, :].any()


@pytest.mark.parametrize(("side", "cells"), [(8, 8), (16, 8), (14, 7), (4, 4), (13, 1)])
def test_large_patches_have_cells_of_some_pixels(side: int, cells: int) -> None:
    assert LinearHead(4, 1, (side, side), 2).cells == (cells, cells)


@pytest.mark.parametrize("name", HEADS)
def test_a_head_starts_as_its_linear_part_alone(name: str) -> None:
    arguments = {"embed_dim": 8, "blocks": 4, "patch_size": (8, 8), "grid_size": (4, 4), "num_classes": 3}
    head = build_head(name, **arguments, channels=8, probe=True).eval()
    linear = linear_part(head)
    torch.nn.init.normal_(linear.classify.weight)
    features = list(torch.randn(4, 2, 8, 4, 4))
    torch.testing.assert_close(head(features), linear(features))
    assert (linear_part(build_head(name, **arguments, channels=8, probe=False)) is None) == (name != "linear")


def test_the_probe_reads_what_the_features_know() -> None:
    """Features that hold every pixel: a linear map of them finds bright pixels, on unseen images too."""

    def extract(images: torch.Tensor) -> list[torch.Tensor]:
        return [functional.pixel_unshuffle(images, 8)]

    def sample() -> tuple[torch.Tensor, torch.Tensor]:
        mask = (torch.rand(1, 64, 64) < 0.3).long()
        image = mask[:, None] * 2.0 + 0.1 * torch.randn(1, 1, 64, 64)
        return image, mask.masked_fill(torch.rand(1, 64, 64) < 0.1, 255)

    linear = LinearHead(64, 1, (8, 8), 2)
    fit_probe(linear, extract, [sample() for _ in range(8)], views=2, class_weights=torch.tensor([1.0, 2.0]))
    image, mask = sample()
    found = linear(extract(image)).detach()
    known = mask != 255
    assert (found.argmax(dim=1) == mask)[known].float().mean() > 0.99
    assert functional.cross_entropy(found, mask, ignore_index=255) < 0.1  # the scale fits a softmax


def test_a_process_without_samples_gets_the_sums_of_the_others() -> None:
    def extract(images: torch.Tensor) -> list[torch.Tensor]:
        return [functional.pixel_unshuffle(images, 8)]

    image = torch.randn(1, 1, 32, 32)
    sent: list[torch.Tensor] = []

    def send(sums: torch.Tensor) -> torch.Tensor:
        sent.append(sums.clone())
        return sums

    full, empty = LinearHead(64, 1, (8, 8), 2), LinearHead(64, 1, (8, 8), 2)
    fit_probe(full, extract, [(image, (image[:, 0] > 0).long())], views=2, reduce=send)
    fit_probe(empty, extract, [], views=2, reduce=lambda sums: sums + sent.pop(0))
    assert full.classify.weight.any()
    torch.testing.assert_close(empty.classify.weight, full.classify.weight)


def test_samples_are_read_without_augmentation() -> None:
    class Data:
        augmentations = v2.RandomHorizontalFlip(p=1.0)

        def __getitem__(self, index: int) -> SegmentationItem:
            image, mask = tv_tensors.Image(torch.eye(4)[None]), tv_tensors.Mask(torch.eye(4).to(torch.uint8))
            image, mask = (image, mask) if self.augmentations is None else self.augmentations(image, mask)
            return SegmentationItem(image=image, gt_mask=None if index else mask)

    data, resize = Data(), v2.Resize([8, 8])
    ((image, mask),) = plain_samples(data, [0, 1], resize, torch.device("cpu"))
    assert data.augmentations is not None
    assert torch.equal(mask[0, ::2, ::2], torch.eye(4).to(torch.uint8))
    assert image.shape == (1, 1, 8, 8)
    assert mask.shape == (1, 8, 8)
