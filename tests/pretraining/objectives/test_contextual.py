# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Contextual tuning: labels of cells, the loss by hand, and that it learns to match."""

import math

import pytest
import torch
from timm.models import VisionTransformer

from anomalib_aoissl.pretraining.objectives.contextual import ContextualTuning, cell_shares, retrieval_loss


def test_shares_are_those_of_each_cell() -> None:
    mask = torch.randint(0, 4, (2, 16, 24), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    mask[0, :3, :5] = 255
    shares = cell_shares(mask, 4, (8, 8), 2)
    assert shares.shape == (2, 6, 4, 4)
    for image in range(2):
        for patch in range(6):
            for cell in range(4):
                top = patch // 3 * 8 + cell // 2 * 4
                left = patch % 3 * 8 + cell % 2 * 4
                part = mask[image, top : top + 4, left : left + 4]
                expected = [float((part == index).float().mean()) for index in range(4)]
                assert shares[image, patch, cell].tolist() == pytest.approx(expected)


def test_the_loss_is_the_weighted_cross_entropy_of_what_is_read() -> None:
    queries = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    bank = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    bank_shares = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    query_shares = torch.tensor([[[1.0, 0.0]], [[0.5, 0.25]]])  # a quarter of the second cell is ignored
    frequency = (0.75, 0.125)
    importance = [(value + 0.01) ** -0.5 for value in frequency]
    scale = sum(i * f for i, f in zip(importance, frequency, strict=True))
    importance = [value / scale for value in importance]
    total = 0.0
    for (first, second), labels in (((1.0, 0.0), (1.0, 0.0)), ((0.6, 0.8), (0.5, 0.25))):
        weight = math.exp(first / 0.5) / (math.exp(first / 0.5) + math.exp(second / 0.5))
        total -= labels[0] * importance[0] * math.log(weight) + labels[1] * importance[1] * math.log(1 - weight)
    loss = retrieval_loss(queries, bank, query_shares, bank_shares, 0.5)
    assert loss.item() == pytest.approx(total / 2, rel=1e-5)


def test_a_class_that_the_bank_lacks_costs_a_finite_loss() -> None:
    one = torch.ones(3, 2)
    labels = torch.tensor([0.0, 1.0]).expand(3, 1, 2)
    loss = retrieval_loss(one, one, labels, 1 - labels, 0.05)
    assert loss.item() == pytest.approx(-math.log(1e-4), rel=1e-4)


def test_a_few_steps_make_equal_labels_alike() -> None:
    torch.manual_seed(0)
    vit = VisionTransformer(img_size=32, patch_size=8, embed_dim=24, depth=1, num_heads=2, num_classes=0)
    tuning = ContextualTuning(vit, 2, pixels=0.1)
    generator = torch.Generator().manual_seed(0)
    masks = torch.randint(0, 2, (4, 4, 4), generator=generator).repeat_interleave(8, 1).repeat_interleave(8, 2)
    # Class 1 is a faint stripe pattern under a strong random brightness of each patch.
    stripes = 0.3 * torch.sin(torch.arange(32) * math.pi / 2).expand(32, 32)
    brightness = torch.randn(4, 1, 4, 4, generator=generator).repeat_interleave(8, 2).repeat_interleave(8, 3)
    images = (brightness + masks[:, None] * stripes).expand(-1, 3, -1, -1)
    optimizer = torch.optim.AdamW(tuning.parameters(), lr=3e-3)
    losses = []
    for step in range(40):
        values = tuning(images, masks, torch.Generator().manual_seed(step))
        assert values["loss"].item() == pytest.approx((values["retrieval"] + 0.1 * values["pixels"]).item())
        optimizer.zero_grad()
        values["loss"].backward()
        optimizer.step()
        losses.append(values["retrieval"].item())
    assert losses[-1] < losses[0] / 2
