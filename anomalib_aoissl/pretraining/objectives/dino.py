# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""DINO: a student matches, from small crops too, what its slowly moving teacher says of large ones."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import torch
from timm.models import VisionTransformer

from anomalib_aoissl.plugin.arguments import validate
from anomalib_aoissl.pretraining.argument_rules import DINO_RULES
from anomalib_aoissl.pretraining.callback import PretrainingCallback
from anomalib_aoissl.pretraining.training.augmentation import CropKind
from anomalib_aoissl.pretraining.training.schedule import cosine, warmup_linear
from anomalib_aoissl.pretraining.training.tokens import check_transformer, encode, grid_of, random_offsets

from .distillation import Center, move_average, prototype_entropy, view_loss
from .heads import PrototypeHead
from .objective import Objective, Progress, Views

__all__ = ["DINOPretraining", "SelfDistillation"]


class SelfDistillation(Objective):
    """Student and teacher with prototype heads [0].

    The global token of a crop (class token, or the mean patch where there is none) goes through the head; the loss is
    `view_loss` between the two global crops of the teacher and all crops of the student.

    Args:
        vit: The student's transformer; the teacher is its moving average, and is what is kept.
        global_size: (height, width) of the 2 global crops, px.
        local_size: (height, width) of the local crops, px.
        local_crops: Local crops of a sample.
        global_zoom: Range of the zoom of global crops; below 1 shows more of the picture.
        local_zoom: Range of the zoom of local crops.
        outputs: Prototypes, K.
        hidden: Width of the head.
        bottleneck: Dims of the prototypes.
        student_temperature: Of the student.
        teacher_temperature: Of the teacher, after its warm-up.
        teacher_warmup_temperature: Of the teacher at the start.
        teacher_warmup: Share of the steps in which the teacher's temperature moves.
        momentum: Of the teacher at the start; it grows to 1 as a cosine.
        center_momentum: Of the centre.
        frozen_prototypes: Share of the steps in which the prototypes do not move.
        final_weight_decay: The weight decay grows to it as a cosine.

    [0]: Caron et al., Emerging Properties in Self-Supervised Vision Transformers, 2021, arXiv 2104.14294.
    """

    name: ClassVar[str] = "dino"
    advice: ClassVar[str] = (
        "lower teacher_temperature and learning_rate, keep centring on (center_momentum below 1), freeze the "
        "prototypes longer (frozen_prototypes), or use fewer outputs"
    )

    def __init__(
        self,
        vit: VisionTransformer,
        *,
        global_size: tuple[int, int],
        local_size: tuple[int, int],
        local_crops: int,
        global_zoom: tuple[float, float],
        local_zoom: tuple[float, float],
        outputs: int,
        hidden: int,
        bottleneck: int,
        student_temperature: float,
        teacher_temperature: float,
        teacher_warmup_temperature: float,
        teacher_warmup: float,
        momentum: float,
        center_momentum: float,
        frozen_prototypes: float,
        final_weight_decay: float,
    ) -> None:
        super().__init__(check_transformer(vit))
        self.kinds = {"global": CropKind(2, global_size, global_zoom)}
        if local_crops:
            self.kinds["local"] = CropKind(local_crops, local_size, local_zoom)
        self.head = PrototypeHead(vit.embed_dim, outputs=outputs, hidden=hidden, bottleneck=bottleneck)
        self.teacher = copy.deepcopy(vit).requires_grad_(False).eval()
        self.teacher_head = copy.deepcopy(self.head).requires_grad_(False)
        self.center = Center(outputs, center_momentum)
        self.student_temperature = student_temperature
        self.teacher_temperatures = (teacher_warmup_temperature, teacher_temperature)
        self.teacher_warmup, self.momentum = teacher_warmup, momentum
        self.frozen_prototypes, self.final_weight_decay = frozen_prototypes, final_weight_decay
        self._first_weight_decay: float | None = None

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
        return warmup_linear(progress.step, round(self.teacher_warmup * progress.steps), *self.teacher_temperatures)

    def forward(self, views: Views, generator: torch.Generator, progress: Progress) -> dict[str, torch.Tensor]:
        """Return the loss of crops ``[B, V, C, h, w]`` and the teacher's entropy."""
        with torch.no_grad():
            taught = self.teacher_head(self._summary(self.teacher, views["global"], generator))  # [2, B, K]
        learnt = torch.cat([self.head(self._summary(self.vit, crops, generator)) for crops in views.values()])
        temperature = self.teacher_temperature(progress)
        loss = self._view_loss(learnt, taught, temperature)
        entropy = prototype_entropy(taught, self.center.value, temperature)
        self.center.add(taught)
        return {"loss": loss, "teacher_entropy": entropy}

    def before_step(self, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
        """Hold the prototypes still at first, and raise the weight decay."""
        if progress.step < round(self.frozen_prototypes * progress.steps):
            for head in self._student_heads():
                head.prototypes.grad = None
        group = optimizer.param_groups[0]
        if self._first_weight_decay is None:
            self._first_weight_decay = group.get("initial_weight_decay", group["weight_decay"])
            group["initial_weight_decay"] = self._first_weight_decay  # a resumed run finds it in its checkpoint
        group["weight_decay"] = cosine(progress.step, progress.steps, self._first_weight_decay, self.final_weight_decay)

    def after_step(self, progress: Progress) -> None:
        """Move the teacher (head included) and the centre, once for each optimiser step."""
        momentum = cosine(progress.step - 1, progress.steps, self.momentum, 1.0)
        for teacher, student in self._pairs():
            move_average(teacher, student, momentum)
        self.center.update()

    def _pairs(self) -> list[tuple[torch.nn.Module, torch.nn.Module]]:
        """Return teacher and student of each part."""
        return [(self.teacher, self.vit), (self.teacher_head, self.head)]

    def _student_heads(self) -> list[PrototypeHead]:
        """Return the heads that learn."""
        return [self.head]

    def _view_loss(self, learnt: torch.Tensor, taught: torch.Tensor, temperature: float) -> torch.Tensor:
        """Return the loss between views."""
        return view_loss(
            learnt,
            taught,
            self.center.value,
            student_temperature=self.student_temperature,
            teacher_temperature=temperature,
        )

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


def size_pair(size: int | tuple[int, int]) -> tuple[int, int]:
    """Return (height, width) of a side or a pair."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


class DINOPretraining(PretrainingCallback):
    """Pretrains the model's encoder by self-distillation (DINO) before the model's own training begins.

    Args:
        global_size: Side, or (height, width), of the 2 global crops, px; 224 in the paper.
        local_size: Side, or (height, width), of the local crops, px; 96 in the paper.
        local_crops: Local crops of a sample; 8 or 10 in the paper.
        global_zoom: Range of the zoom of global crops.
        local_zoom: Range of the zoom of local crops.
        outputs: Prototypes; 65536 in the paper, for 1.3 million images.
        hidden: Width of the head; 2048 in the paper.
        bottleneck: Dims of the prototypes; 256 in the paper.
        student_temperature: Of the student; 0.1 in the paper.
        teacher_temperature: Of the teacher; 0.07 in the paper.
        teacher_warmup_temperature: Of the teacher at the start; 0.04 in the paper.
        teacher_warmup: Share of the steps in which the teacher's temperature moves; 0.3 in the paper.
        momentum: Of the teacher at the start; 0.996 in the paper. For runs of a few hundred steps 0.98.
        center_momentum: Of the centre; 0.9 in the paper.
        frozen_prototypes: Share of the steps in which the prototypes do not move; 1 epoch of 100 in the paper.
        learning_rate: Peak of the learning rate; null: 5e-4 from random weights, 1e-4 from trained ones. In the paper
            5e-4 * batch size / 256.
        weight_decay: At the start; 0.04 in the paper.
        final_weight_decay: At the end; 0.4 in the paper.
        betas: Of AdamW.
        **common: What all objectives share; see `PretrainingCallback`.
    """

    objective_name: ClassVar[str] = "dino"
    scratch_rate: ClassVar[float] = 5e-4

    def __init__(
        self,
        global_size: int | tuple[int, int] = 96,
        local_size: int | tuple[int, int] = 48,
        local_crops: int = 4,
        global_zoom: tuple[float, float] = (0.7, 1.4),
        local_zoom: tuple[float, float] = (0.7, 1.4),
        outputs: int = 1024,
        hidden: int = 512,
        bottleneck: int = 128,
        student_temperature: float = 0.1,
        teacher_temperature: float = 0.07,
        teacher_warmup_temperature: float = 0.04,
        teacher_warmup: float = 0.3,
        momentum: float = 0.996,
        center_momentum: float = 0.9,
        frozen_prototypes: float = 0.01,
        learning_rate: float | None = None,
        weight_decay: float = 0.04,
        final_weight_decay: float = 0.4,
        betas: tuple[float, float] = (0.9, 0.999),
        **common: Any,
    ) -> None:
        validate(DINO_RULES, locals())
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay, betas=betas, **common)
        self.objective_arguments = {
            "global_size": size_pair(global_size),
            "local_size": size_pair(local_size),
            "local_crops": local_crops,
            "global_zoom": tuple(global_zoom),
            "local_zoom": tuple(local_zoom),
            "outputs": outputs,
            "hidden": hidden,
            "bottleneck": bottleneck,
            "student_temperature": student_temperature,
            "teacher_temperature": teacher_temperature,
            "teacher_warmup_temperature": teacher_warmup_temperature,
            "teacher_warmup": teacher_warmup,
            "momentum": momentum,
            "center_momentum": center_momentum,
            "frozen_prototypes": frozen_prototypes,
            "final_weight_decay": final_weight_decay,
        }

    def build_objective(self, vit: VisionTransformer) -> SelfDistillation:
        """Return student and teacher around the transformer."""
        return SelfDistillation(vit, **self.objective_arguments)
