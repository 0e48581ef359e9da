# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""DINO: a student matches, from small crops too, what its slowly moving teacher says of large ones."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from timm.models import VisionTransformer

from anomalib_aoissl.plugin.arguments import Rule
from anomalib_aoissl.plugin.removed_arguments import had_arguments
from anomalib_aoissl.pretraining.argument_rules import DINO_GONE, DINO_MOVED, DINO_RULES
from anomalib_aoissl.pretraining.callback import PretrainingCallback
from anomalib_aoissl.pretraining.options import DINOCropOptions, HeadOptions, TeacherOptions, size_pair
from anomalib_aoissl.pretraining.training.augmentation import CropKind
from anomalib_aoissl.pretraining.training.objective import Objective, Progress, Views
from anomalib_aoissl.pretraining.training.schedule import cosine, warmup_linear
from anomalib_aoissl.pretraining.training.tokens import check_transformer, encode, grid_of, random_offsets

from .distillation import Center, move_average, prototype_entropy, view_loss
from .heads import PrototypeHead

_FIRST_TEMPERATURE, _WARMUP = 0.04, 0.3  # of the teacher, and the share of the steps in which it moves
_LAST_WEIGHT_DECAY = 0.4  # all three in both papers


class SelfDistillation(Objective):
    """Student and teacher with prototype heads [0].

    The global token of a crop (class token, or the mean patch where there is none) goes through the head; the loss is
    `view_loss` between the two global crops of the teacher and all crops of the student.

    Args:
        vit: The student's transformer; the teacher is its moving average, and is what is kept.
        crops: Number, size and zoom of the crops.
        head: Prototypes and the head before them.
        teacher: Temperature and momentum of the teacher.

    [0]: Caron et al., Emerging Properties in Self-Supervised Vision Transformers, 2021, arXiv 2104.14294.
    """

    name: ClassVar[str] = "dino"
    advice: ClassVar[str] = (
        "lower teacher.temperature and optimizer.learning_rate, freeze the prototypes longer (head.frozen), or use "
        "fewer of them (head.outputs)"
    )

    betas: ClassVar[tuple[float, float]] = (0.9, 0.999)
    weight_decay: ClassVar[float] = 0.04

    def __init__(
        self, vit: VisionTransformer, crops: DINOCropOptions, head: HeadOptions, teacher: TeacherOptions
    ) -> None:
        super().__init__(check_transformer(vit))
        self.kinds = {"global": CropKind(2, size_pair(crops.global_size), crops.zoom)}
        if crops.local_count:
            self.kinds["local"] = CropKind(crops.local_count, size_pair(crops.local_size), crops.zoom)
        self.head = PrototypeHead(vit.embed_dim, outputs=head.outputs, hidden=head.hidden, bottleneck=head.bottleneck)
        self.teacher = copy.deepcopy(vit).requires_grad_(False).eval()
        self.teacher_head = copy.deepcopy(self.head).requires_grad_(False)
        self.center = Center(head.outputs)
        self.head_options, self.teacher_options = head, teacher

    @property
    def result(self) -> VisionTransformer:
        """The teacher's transformer."""
        return self.teacher

    def crop_kinds(self) -> dict[str, CropKind]:
        """Return two global crops and the local ones."""
        return self.kinds

    def train(self, mode: bool = True) -> SelfDistillation:
        """Set the mode; the teacher stays in evaluation mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    def teacher_temperature(self, progress: Progress) -> float:
        """Return the teacher's temperature at a step."""
        warmup = round(_WARMUP * progress.steps)
        return warmup_linear(progress.step, warmup, _FIRST_TEMPERATURE, self.teacher_options.temperature)

    def forward(self, views: Views, generator: torch.Generator, progress: Progress) -> dict[str, torch.Tensor]:
        """Return the loss of crops ``[B, V, C, h, w]`` and the teacher's entropy."""
        with torch.no_grad():
            taught = self.teacher_head(self._summary(self.teacher, views["global"], generator))  # [2, B, K]
        learnt = torch.cat([self.head(self._summary(self.vit, crops, generator)) for crops in views.values()])
        temperature = self.teacher_temperature(progress)
        loss = view_loss(learnt, taught, self.center.value, teacher_temperature=temperature)
        entropy = prototype_entropy(taught, self.center.value, temperature)
        self.center.add(taught)
        return {"loss": loss, "teacher_entropy": entropy}

    def before_step(self, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
        """Hold the prototypes still at first, and raise the weight decay."""
        if progress.step < round(self.head_options.frozen * progress.steps):
            self.head.prototypes.grad = None
        decay = cosine(progress.step, progress.steps, self.weight_decay, _LAST_WEIGHT_DECAY)
        optimizer.param_groups[0]["weight_decay"] = decay

    def after_step(self, progress: Progress) -> None:
        """Move the teacher (head included) and the centre, once for each optimiser step."""
        momentum = cosine(progress.step - 1, progress.steps, self.teacher_options.momentum, 1.0)
        move_average(self.teacher, self.vit, momentum)
        move_average(self.teacher_head, self.head, momentum)
        self.center.update()

    def _summary(self, vit: VisionTransformer, crops: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return the global tokens ``[V, B, D]`` of crops ``[B, V, C, h, w]``."""
        tokens = self._tokens(vit, crops.transpose(0, 1).flatten(0, 1), generator)  # [V * B, T + P, D]
        return global_token(vit, tokens).unflatten(0, (crops.shape[1], crops.shape[0]))

    @staticmethod
    def _tokens(
        vit: VisionTransformer,
        images: torch.Tensor,
        generator: torch.Generator,
        masked: torch.Tensor | None = None,
        mask_token: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the tokens of images ``[N, C, h, w]`` at random places of the grid of positions."""
        offsets = random_offsets(vit, grid_of(vit, images), len(images), generator)
        return encode(vit, images, offsets=offsets, masked=masked, mask_token=mask_token)


def global_token(vit: VisionTransformer, tokens: torch.Tensor) -> torch.Tensor:
    """Return the class token ``[N, D]`` of tokens ``[N, T + P, D]``, or the mean patch where there is none."""
    return tokens[:, 0] if vit.cls_token is not None else tokens[:, vit.num_prefix_tokens :].mean(dim=1)


@had_arguments(*DINO_GONE, moved=DINO_MOVED)
@dataclass(eq=False, repr=False)
class DINOPretraining(PretrainingCallback):
    """Pretrains the model's encoder by self-distillation (DINO) before the model's own training begins.

    Args:
        crops: How crops are cut from the pictures, see `DINOCropOptions`.
        head: Prototypes and the head before them, see `HeadOptions`.
        teacher: The teacher, see `TeacherOptions`.

    What all objectives share: see `PretrainingCallback`.
    """

    RULES: ClassVar[Mapping[str, Rule]] = DINO_RULES
    objective_name: ClassVar[str] = "dino"
    scratch_rate: ClassVar[float] = 5e-4

    crops: DINOCropOptions = DINOCropOptions()
    head: HeadOptions = HeadOptions()
    teacher: TeacherOptions = TeacherOptions()

    def build_objective(self, vit: VisionTransformer) -> SelfDistillation:
        """Return student and teacher around the transformer."""
        return SelfDistillation(vit, self.crops, self.head, self.teacher)
