# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

import itertools
import math

import pytest
import torch

from anomalib_aoissl.pretraining.objectives.distillation import Center, masked_patch_loss, move_average, view_loss
from anomalib_aoissl.pretraining.objectives.mae import masked_pixel_loss, normalise_patches
from anomalib_aoissl.pretraining.training.patches import PatchWhitening, cut_patches, paste_patches


@pytest.mark.parametrize("shape", [(2, 3, 16, 24), (1, 1, 8, 8), (2, 4, 24, 16)])
def test_patches_are_cut_row_by_row_and_pasted_back(shape: tuple[int, ...]) -> None:
    images = torch.randn(shape)
    patches = cut_patches(images, (8, 4))
    columns = shape[3] // 4
    index = columns + 1 if shape[2] > 8 else 1
    top, left = index // columns * 8, index % columns * 4
    assert torch.equal(patches[0, index], images[0, :, top : top + 8, left : left + 4].flatten())
    assert torch.equal(paste_patches(patches, (shape[2], shape[3]), (8, 4)), images)


def test_normalised_patches_by_hand() -> None:
    patch = torch.tensor([1.0, 3.0])
    torch.testing.assert_close(normalise_patches(patch, 0.0), torch.tensor([-1.0, 1.0]))
    torch.testing.assert_close(normalise_patches(patch, 3.0**0.5), torch.tensor([-0.5, 0.5]))
    assert torch.equal(normalise_patches(torch.full((4,), 0.3), 0.0), torch.zeros(4))


def test_the_floor_takes_the_noise_of_dark_areas_away() -> None:
    noise, structure = torch.randn(1000, 64) * 0.01, torch.randn(1000, 64)
    assert normalise_patches(noise, 0.1).std() < 0.11
    assert normalise_patches(structure, 0.1).std() > 0.95


def test_whitening_decorrelates_and_comes_back() -> None:
    generator = torch.Generator().manual_seed(0)
    patches = torch.randn(4000, 6, generator=generator) @ torch.randn(6, 6, generator=generator) + 2
    whitening = PatchWhitening(6, 0.0)
    whitening.fit(patches)
    white = whitening(patches)
    torch.testing.assert_close(torch.cov(white.T), torch.eye(6), atol=1e-3, rtol=0)
    torch.testing.assert_close(whitening.inverse(white), patches, atol=1e-3, rtol=1e-3)


def test_whitening_keeps_what_is_weaker_than_the_floor_out() -> None:
    patches = torch.randn(4000, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 0.01])
    whitening = PatchWhitening(2, 0.1)
    whitening.fit(patches)
    assert whitening(patches).std(dim=0).tolist() == pytest.approx([0.1, 1.0], abs=0.03)


def test_pixel_loss_is_the_mean_over_masked_values_and_zero_without_any() -> None:
    predicted, target = torch.randn(2, 3, 5), torch.randn(2, 3, 5)
    assert masked_pixel_loss(predicted, target) == pytest.approx(float(((predicted - target) ** 2).sum() / 30))
    nothing = torch.zeros(2, 0, 5, requires_grad=True)
    masked_pixel_loss(nothing, torch.zeros(2, 0, 5)).backward()
    assert nothing.grad is not None


@pytest.mark.parametrize(("batch", "locals_", "outputs"), list(itertools.product([1, 4], [0, 3], [8, 33])))
def test_view_loss_and_center_equal_lightly(batch: int, locals_: int, outputs: int) -> None:
    loss = pytest.importorskip("lightly.loss", reason="needs lightly==1.6.* (pip install --no-deps)")
    oracle = loss.DINOLoss(outputs, teacher_temp=0.05, student_temp=0.1, center_momentum=0.9)
    center = Center(outputs)
    for step in range(3):  # the centre of one step enters the loss of the next
        generator = torch.Generator().manual_seed(step)
        teacher = torch.randn(2, batch, outputs, generator=generator)
        student = torch.randn(2 + locals_, batch, outputs, generator=generator, requires_grad=True)
        twin = student.detach().clone().requires_grad_(True)
        expected = oracle(list(teacher), list(twin), teacher_temp=0.05)
        found = view_loss(student, teacher, center.value, teacher_temperature=0.05)
        center.add(teacher)
        center.update()
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(center.value, oracle.center.flatten(), atol=1e-6, rtol=1e-6)
        found.backward()
        expected.backward()
        torch.testing.assert_close(student.grad, twin.grad, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("share", [0.2, 0.6, 1.0])
def test_masked_patch_loss_and_center_equal_lightly(share: float) -> None:
    loss = pytest.importorskip("lightly.loss", reason="needs lightly==1.6.* (pip install --no-deps)")
    oracle = loss.IBOTPatchLoss(12, teacher_temp=0.05, student_temp=0.1, center_momentum=0.9)
    center = Center(12)
    for step in range(3):
        generator = torch.Generator().manual_seed(step)
        masked = torch.rand(4, 3, 5, generator=generator) < share
        masked[0] = share == 1.0
        count = int(masked.sum())
        teacher, student = (torch.randn(count, 12, generator=generator) for _ in range(2))
        expected = oracle(teacher, student, masked, teacher_temp=0.05)
        found = masked_patch_loss(student, teacher, center.value, masked.flatten(1), teacher_temperature=0.05)
        center.add(teacher)
        center.update()
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(center.value, oracle.center.value.flatten(), atol=1e-6, rtol=1e-6)


def test_view_loss_by_hand() -> None:
    # One image, two prototypes; the teacher is sure of the first, the student says (3/4, 1/4) in the other view.
    teacher = torch.tensor([[[100.0, 0.0]]])
    student = torch.tensor([[[0.0, 0.0]], [[3.0, 1.0]]]).log().clamp_min(-50)
    found = view_loss(student, teacher, torch.zeros(2), student_temperature=1.0, teacher_temperature=1.0)
    assert found.item() == pytest.approx(-torch.tensor(0.75).log().item(), abs=1e-6)


def test_masked_patch_loss_by_hand() -> None:
    # The teacher is sure of the first of two prototypes, so a patch costs -log of what the student gives it. Of the
    # first image one patch is masked (1/2), of the second three (1/4, 1/4, 1/8), of the third none: 1, 7/3 and 0 bits.
    masked = torch.tensor([[0, 1, 0], [1, 1, 1], [0, 0, 0]]).bool()
    student = torch.tensor([[1.0, 1.0], [1.0, 3.0], [1.0, 3.0], [1.0, 7.0]]).log()
    teacher = torch.tensor([[100.0, 0.0]]).expand(4, 2)
    found = masked_patch_loss(
        student, teacher, torch.zeros(2), masked, student_temperature=1.0, teacher_temperature=1.0
    )
    assert found.item() == pytest.approx((1 + 7 / 3 + 0) / 3 * math.log(2), abs=1e-6)


def test_a_batch_that_masks_nothing_leaves_loss_and_center_finite() -> None:
    center = Center(6)
    center.value.fill_(0.5)
    nothing = torch.zeros(0, 6, requires_grad=True)
    masked = torch.zeros(2, 9, dtype=torch.bool)
    loss = masked_patch_loss(nothing, nothing.detach(), center.value, masked, teacher_temperature=0.05)
    loss.backward()
    center.add(nothing)
    center.update()
    assert loss.item() == 0
    assert torch.equal(center.value, torch.full((6,), 0.5))


def test_the_center_of_accumulated_batches_is_that_of_one_batch() -> None:
    logits = torch.randn(10, 6)
    whole, parts = Center(6), Center(6)
    whole.add(logits)
    for part in logits.split([3, 6, 1]):
        parts.add(part)
    whole.update()
    parts.update()
    torch.testing.assert_close(whole.value, parts.value)


def test_the_teacher_moves_by_the_momentum() -> None:
    teacher, student = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
    expected = 0.9 * teacher.weight.detach() + 0.1 * student.weight.detach()
    move_average(teacher, student, 0.9)
    torch.testing.assert_close(teacher.weight.detach(), expected)


def test_the_losses_are_full_precision_under_autocast() -> None:
    logits = torch.randn(3, 8192, 4) * 5  # a sum of 8192 cross-entropies overflows half precision
    expected = view_loss(logits, logits[:2], torch.zeros(4), teacher_temperature=0.07)
    patches = torch.randn(100, 48) * torch.linspace(0.01, 3, 48)
    whitening = PatchWhitening(48, 0.01)
    whitening.fit(patches)
    with torch.autocast("cpu", dtype=torch.float16):
        assert torch.equal(view_loss(logits, logits[:2], torch.zeros(4), teacher_temperature=0.07), expected)
        whitened = whitening(patches)
    assert torch.equal(whitened, whitening(patches))


@pytest.mark.parametrize("overflow", [float("inf"), float("nan")])
def test_the_center_passes_over_logits_that_overflowed(overflow: float) -> None:
    center = Center(2)
    center.add(torch.tensor([[2.0, overflow]]))
    center.update()
    assert torch.equal(center.value, torch.zeros(2))
    center.add(torch.tensor([[2.0, 4.0]]))
    center.update()
    torch.testing.assert_close(center.value, torch.tensor([0.2, 0.4]))
