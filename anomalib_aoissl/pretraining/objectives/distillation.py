# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What DINO and iBOT share: their losses, the centre of the teacher's outputs, and the moving average."""

from __future__ import annotations

import torch
from torch import distributed, nn

_STUDENT_TEMPERATURE, _CENTER_MOMENTUM = 0.1, 0.9  # in both papers


def view_loss(
    student: torch.Tensor,
    teacher: torch.Tensor,
    center: torch.Tensor,
    *,
    teacher_temperature: float,
    student_temperature: float = _STUDENT_TEMPERATURE,
) -> torch.Tensor:
    """Return the mean cross-entropy between different views of an image [0].

    With ``p = softmax((teacher - center) / teacher_temperature)`` and ``q = softmax(student / student_temperature)``:
    the mean over images b and pairs of views t != s of ``-sum_k p[t, b, k] log q[s, b, k]``.

    Args:
        student: Logits ``[S, B, K]`` of all views, 2 or more; the first T of them are the teacher's.
        teacher: Logits ``[T, B, K]``.
        center: ``[K]``.
        teacher_temperature: Of the teacher; smaller sharpens.
        student_temperature: Of the student.

    [0]: Caron et al., 2021, arXiv 2104.14294, equations 1 and 3.
    """
    pairs = len(student) * len(teacher) - min(len(student), len(teacher))
    wanted = ((teacher.float() - center) / teacher_temperature).softmax(dim=-1)
    given = (student.float() / student_temperature).log_softmax(dim=-1)
    # t = teacher views, s = student views, b = images, k = prototypes
    with torch.autocast(wanted.device.type, enabled=False):  # a sum over many images overflows half precision
        terms = -torch.einsum("tbk,sbk->ts", wanted, given)
    return (terms.sum() - terms.diagonal().sum()) / (pairs * student.shape[1])


def masked_patch_loss(
    student: torch.Tensor,
    teacher: torch.Tensor,
    center: torch.Tensor,
    masked: torch.Tensor,
    *,
    teacher_temperature: float,
    student_temperature: float = _STUDENT_TEMPERATURE,
) -> torch.Tensor:
    """Return the mean over images of the mean cross-entropy over an image's masked patches [0].

    An image without masked patches adds 0, and a batch without any gives a loss of 0 with gradients of 0.

    Args:
        student: Logits ``[M, K]`` of all masked patches of the batch, in the order of ``masked``.
        teacher: Logits ``[M, K]`` of the same patches, unmasked.
        center: ``[K]``.
        masked: ``[B, P]`` (bool), true in M places.
        teacher_temperature: Of the teacher.
        student_temperature: Of the student.

    [0]: Zhou et al., iBOT, 2021, arXiv 2111.07832, equation 2.
    """
    wanted = ((teacher.float() - center) / teacher_temperature).softmax(dim=-1)
    given = (student.float() / student_temperature).log_softmax(dim=-1)
    each = -(wanted * given).sum(dim=-1)  # [M]
    share = (1.0 / masked.sum(dim=1, keepdim=True).clamp_min(1)).expand_as(masked)[masked]  # [M]
    return (each * share).sum() / len(masked)


def prototype_entropy(teacher: torch.Tensor, center: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return the mean entropy in nats of the teacher's outputs ``[..., K]``: 0 to log K; either end is a collapse."""
    wanted = ((teacher.float() - center) / temperature).softmax(dim=-1)
    return torch.special.entr(wanted).sum(dim=-1).mean()


class Center(nn.Module):
    """Moving average of the teacher's logits over all batches of an optimiser step on all processes.

    Sums and counts are gathered, not means: shares of unequal size weigh as one big batch would.

    Args:
        outputs: K.
    """

    value: torch.Tensor
    total: torch.Tensor
    count: torch.Tensor

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.register_buffer("value", torch.zeros(outputs))
        self.register_buffer("total", torch.zeros(outputs), persistent=False)
        self.register_buffer("count", torch.zeros(1), persistent=False)

    @torch.no_grad()
    def add(self, logits: torch.Tensor) -> None:
        """Add logits ``[..., K]`` of a batch; none may be there."""
        flat = logits.detach().float().flatten(0, -2)
        self.total += flat.sum(dim=0)
        self.count += len(flat)

    @torch.no_grad()
    def update(self) -> None:
        """Move the centre to the mean of what was added on all processes.

        Nothing added leaves it as it is, and so do logits that overflowed in half precision, whose optimiser step the
        gradient scaler skips: the centre would never be finite again.
        """
        gathered = torch.cat([self.total, self.count])
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(gathered)
        if gathered[-1] > 0 and gathered.isfinite().all():
            self.value.lerp_(gathered[:-1] / gathered[-1], 1 - _CENTER_MOMENTUM)
        self.total.zero_()
        self.count.zero_()


@torch.no_grad()
def move_average(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Move the teacher's weights to momentum * teacher + (1 - momentum) * student; buffers are copied."""
    for old, new in zip(teacher.parameters(), student.parameters(), strict=True):
        old.lerp_(new.detach().to(old.dtype), 1 - momentum)
    for kept, buffer in zip(teacher.buffers(), student.buffers(), strict=True):
        kept.copy_(buffer)
