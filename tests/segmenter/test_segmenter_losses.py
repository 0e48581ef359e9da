# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The loss against torch, torchmetrics and values by hand; weights of the classes."""

import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional
from torchmetrics.functional.segmentation import dice_score

from anomalib_aoissl.segmenter.losses import dice_loss, root_weights, segmentation_loss


@pytest.fixture
def scores() -> torch.Tensor:
    return torch.randn(2, 4, 9, 7)


@pytest.fixture
def masks() -> torch.Tensor:
    masks = torch.randint(0, 4, (2, 9, 7)).to(torch.uint8)
    masks[0, :2] = 255
    return masks


def hard(labels: torch.Tensor, classes: int) -> torch.Tensor:
    """Return probabilities [1, classes, 1, N] that are sure of the labels [N]."""
    return functional.one_hot(labels, classes).float().T[None, :, None]


def row(labels: torch.Tensor) -> torch.Tensor:
    """Return a mask [1, 1, N] of labels [N]."""
    return labels.to(torch.uint8)[None, None]


def soft_dice(scores: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Return the mean soft Dice coefficient of the classes that occur, class by class and pixel by pixel."""
    probabilities = scores.double().softmax(dim=1).movedim(1, -1)[masks != 255]
    labels = masks[masks != 255].tolist()
    coefficients = []
    for index in sorted(set(labels)):
        true = torch.tensor([float(label == index) for label in labels]).double()
        p = probabilities[:, index]
        coefficients.append(2 * (p * true).sum() / (p.sum() + true.sum()))
    return torch.stack(coefficients).mean()


@pytest.mark.parametrize("weights", [None, [0.5, 1.0, 4.0, 2.0]])
def test_it_is_the_sum_of_torch_s_cross_entropy_and_dice(
    scores: torch.Tensor, masks: torch.Tensor, weights: list[float] | None
) -> None:
    given = None if weights is None else torch.tensor(weights)
    entropy = functional.cross_entropy(scores, masks.long(), given, ignore_index=255)
    expected = entropy.double() + 1 - soft_dice(scores, masks)
    torch.testing.assert_close(segmentation_loss(scores, masks, given).double(), expected, atol=1e-5, rtol=1e-5)


def test_dice_by_hand() -> None:
    # Probabilities of class 1: 0.8, 0.4, 0.1; labels 1, 1, 0.
    probabilities = torch.tensor([[0.2, 0.8], [0.6, 0.4], [0.9, 0.1]])
    labels = torch.tensor([1, 1, 0])
    # Class 0: shared 0.9, predicted 1.7, true 1; class 1: shared 1.2, predicted 1.3, true 2.
    expected = 1 - (2 * 0.9 / 2.7 + 2 * 1.2 / 3.3) / 2
    assert float(dice_loss(probabilities.T[None, :, None], row(labels))) == pytest.approx(expected, abs=1e-6)


def test_dice_of_sure_answers_is_that_of_torchmetrics() -> None:
    labels, predicted = torch.randint(0, 4, (500,)), torch.randint(0, 4, (500,))
    one_hot = (functional.one_hot(values, 4).T[None] for values in (predicted, labels))
    expected = dice_score(*one_hot, num_classes=4, average="none").mean()
    torch.testing.assert_close(dice_loss(hard(predicted, 4), row(labels)), 1 - expected)


def test_ignored_pixels_and_absent_classes_do_not_count(scores: torch.Tensor, masks: torch.Tensor) -> None:
    other = torch.where((masks == 255)[:, None], torch.randn_like(scores), scores)
    torch.testing.assert_close(segmentation_loss(scores, masks), segmentation_loss(other, masks))
    labels = torch.tensor([0, 0, 1])
    assert float(dice_loss(hard(labels, 4), row(labels))) == pytest.approx(0, abs=1e-6)


def test_nothing_to_count_gives_zero_with_a_gradient(scores: torch.Tensor) -> None:
    scores.requires_grad_()
    value = segmentation_loss(scores, torch.full((2, 9, 7), 255, dtype=torch.uint8))
    (gradient,) = torch.autograd.grad(value, scores)
    assert value.item() == 0
    assert not gradient.any()
    assert dice_loss(scores.softmax(dim=1), torch.full((2, 9, 7), 255)).item() == 0


def test_a_step_along_the_gradient_lowers_the_loss(scores: torch.Tensor, masks: torch.Tensor) -> None:
    scores.requires_grad_()
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0])
    before = segmentation_loss(scores, masks, weights)
    (gradient,) = torch.autograd.grad(before, scores)
    assert segmentation_loss(scores - gradient, masks, weights) < before


def test_half_precision_is_summed_in_full() -> None:
    labels = torch.randint(0, 2, (1, 300, 300)).to(torch.uint8)
    scores = torch.randn(1, 2, 300, 300)
    expected = segmentation_loss(scores, labels)
    torch.testing.assert_close(segmentation_loss(scores.half(), labels), expected, atol=1e-3, rtol=1e-3)


def test_a_lost_thin_class_costs_as_much_as_a_lost_thick_one() -> None:
    labels = torch.tensor([0] * 900 + [1] * 90 + [2] * 10)
    without = {index: hard(torch.where(labels == index, 0, labels), 3) for index in (1, 2)}
    assert float(dice_loss(without[2], row(labels))) == pytest.approx(
        float(dice_loss(without[1], row(labels))), rel=0.1
    )


def test_root_weights_by_hand() -> None:
    # Roots of the inverses 1/20, 1/10, 1/5; their mean is 7/60.
    assert root_weights(torch.tensor([400, 100, 25])).tolist() == pytest.approx([3 / 7, 6 / 7, 12 / 7])
    assert root_weights(torch.tensor([7, 7])).tolist() == [1, 1]


def test_root_weights_are_the_roots_of_scikit_learn_s_balanced_ones() -> None:
    labels = torch.randint(0, 30, (900,)).sqrt().long()
    counts = torch.bincount(labels, minlength=6)
    balanced = compute_class_weight("balanced", classes=labels.unique().numpy(), y=labels.numpy()) ** 0.5
    assert root_weights(counts).tolist() == pytest.approx((balanced / balanced.mean()).tolist(), rel=1e-5)


def test_a_class_that_no_counted_image_shows_weighs_as_the_rarest() -> None:
    weights = root_weights(torch.tensor([400, 0, 100]))
    assert weights.tolist() == pytest.approx([2 / 3, 4 / 3, 4 / 3])
    masks = torch.full((1, 2, 2), 1, dtype=torch.uint8)  # an image that was not counted
    assert segmentation_loss(torch.zeros(1, 3, 2, 2), masks, weights).isfinite()
