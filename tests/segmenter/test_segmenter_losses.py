# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The losses against torch, hand-computed values and counted intersections over unions."""

import itertools

import numpy as np
import pytest
import torch
from torch.nn import functional
from torchmetrics.functional.classification import multiclass_jaccard_index
from torchmetrics.functional.segmentation import dice_score

from anomalib_aoissl.segmenter.losses import LOSSES, SegmentationLoss, dice, jaccard, lovasz

SURE = 60.0  # as a score before the softmax it leaves a probability of 1 in float32


@pytest.fixture
def scores() -> torch.Tensor:
    return torch.randn(2, 4, 9, 7)


@pytest.fixture
def masks() -> torch.Tensor:
    masks = torch.randint(0, 4, (2, 9, 7)).to(torch.uint8)
    masks[0, :2] = 255
    return masks


def hard(labels: torch.Tensor, classes: int) -> torch.Tensor:
    """Return scores [N, classes] that are sure of the labels."""
    return SURE * functional.one_hot(labels, classes).float()


@pytest.mark.parametrize("weights", [None, [0.5, 1.0, 4.0, 2.0]])
def test_cross_entropy_is_torch_s(scores: torch.Tensor, masks: torch.Tensor, weights: list[float] | None) -> None:
    expected = functional.cross_entropy(
        scores, masks.long(), None if weights is None else torch.tensor(weights), ignore_index=255
    )
    torch.testing.assert_close(SegmentationLoss("cross_entropy", weights)(scores, masks), expected)


def test_dice_and_jaccard_by_hand() -> None:
    # Probabilities of class 1: 0.8, 0.4, 0.1; labels 1, 1, 0.
    probabilities = torch.tensor([[0.2, 0.8], [0.6, 0.4], [0.9, 0.1]])
    labels = torch.tensor([1, 1, 0])
    # Class 0: shared 0.9, predicted 1.7, true 1; class 1: shared 1.2, predicted 1.3, true 2.
    expected = 1 - (2 * 0.9 / 2.7 + 2 * 1.2 / 3.3) / 2
    assert float(dice(probabilities.log(), labels)) == pytest.approx(expected, abs=1e-6)
    expected = 1 - (0.9 / 1.8 + 1.2 / 2.1) / 2
    assert float(jaccard(probabilities.log(), labels)) == pytest.approx(expected, abs=1e-6)
    weighted = 1 - (1 * 0.9 / 1.8 + 3 * 1.2 / 2.1) / 4
    assert float(jaccard(probabilities.log(), labels, torch.tensor([1.0, 3.0]))) == pytest.approx(weighted, abs=1e-6)


def test_sure_predictions_give_one_minus_the_counted_measure() -> None:
    labels, predicted = torch.randint(0, 4, (500,)), torch.randint(0, 4, (500,))
    iou = multiclass_jaccard_index(predicted, labels, 4, average="macro")
    for loss in (jaccard, lovasz):  # the Lovász extension is the set function itself on corners of the cube
        torch.testing.assert_close(loss(hard(predicted, 4), labels), 1 - iou)
    one_hot = (functional.one_hot(t, 4).T[None] for t in (predicted, labels))
    expected = dice_score(*one_hot, num_classes=4, average="none").mean()
    torch.testing.assert_close(dice(hard(predicted, 4), labels), 1 - expected)


def lovasz_extension(errors: np.ndarray, true: np.ndarray) -> float:
    """Return the Lovász extension of the Jaccard loss of one class by its definition, an integral over thresholds."""
    levels = np.sort(np.unique(np.concatenate([[0.0], errors])))
    value = 0.0
    for low, high in itertools.pairwise(levels):
        wrong = errors > low  # the pixels that are wrong at any threshold in [low, high)
        predicted = true ^ wrong
        value += (high - low) * (1 - (true & predicted).sum() / (true | predicted).sum())
    return value


def test_lovasz_is_the_integral_of_its_definition() -> None:
    rows, labels = torch.randn(40, 3, dtype=torch.float64), torch.randint(0, 3, (40,))
    probabilities = rows.softmax(dim=1).numpy()
    terms = []
    for index in range(3):
        true = (labels == index).numpy()
        terms.append(lovasz_extension(np.abs(true - probabilities[:, index]), true))
    assert float(lovasz(rows, labels)) == pytest.approx(np.mean(terms), abs=1e-9)


@pytest.mark.parametrize("name", LOSSES)
def test_ignored_pixels_and_absent_classes_do_not_count(name: str, scores: torch.Tensor, masks: torch.Tensor) -> None:
    loss = SegmentationLoss(name)
    other = torch.where((masks == 255)[:, None], torch.randn_like(scores), scores)
    torch.testing.assert_close(loss(scores, masks), loss(other, masks))
    rows, labels = hard(torch.tensor([0, 0, 1]), 4), torch.tensor([0, 0, 1])
    assert float(LOSSES[name](rows, labels, None)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", [*LOSSES, "cross_entropy+dice"])
def test_nothing_to_count_gives_zero_with_a_gradient(name: str, scores: torch.Tensor) -> None:
    scores.requires_grad_()
    loss = SegmentationLoss(name, [0.0, 1.0, 1.0, 1.0])
    for masks in (torch.full((2, 9, 7), 255), torch.zeros(2, 9, 7)):  # all ignored; only a class of weight 0
        value = loss(scores, masks.to(torch.uint8))
        (gradient,) = torch.autograd.grad(value, scores)
        assert value.item() == 0
        assert gradient.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
def test_a_step_along_the_gradient_lowers_the_loss(name: str, scores: torch.Tensor, masks: torch.Tensor) -> None:
    scores.requires_grad_()
    loss = SegmentationLoss(name, [1.0, 2.0, 3.0, 4.0])
    before = loss(scores, masks)
    (gradient,) = torch.autograd.grad(before, scores)
    assert loss(scores - gradient, masks) < before


def test_a_sum_is_the_sum(scores: torch.Tensor, masks: torch.Tensor) -> None:
    parts = SegmentationLoss("dice")(scores, masks) + SegmentationLoss("lovasz")(scores, masks)
    torch.testing.assert_close(SegmentationLoss("dice + lovasz")(scores, masks), parts)


def test_a_lost_thin_class_costs_as_much_as_a_lost_thick_one() -> None:
    labels = torch.tensor([0] * 900 + [1] * 90 + [2] * 10)
    without = {index: hard(torch.where(labels == index, 0, labels), 3) for index in (1, 2)}
    assert float(dice(without[2], labels)) == pytest.approx(float(dice(without[1], labels)), rel=0.1)


def test_errors_say_what_is_allowed() -> None:
    with pytest.raises(
        ValueError, match=r"loss='focal\+dice': \['focal'\] is unknown. The losses are \['cross_entropy"
    ):
        SegmentationLoss("focal+dice")
    with pytest.raises(ValueError, match=r"class_weights=\[-1.0, 2.0\] must not be negative"):
        SegmentationLoss("dice", [-1.0, 2.0])
