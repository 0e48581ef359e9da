# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""iBOT: DINO, and the student also says of masked patches what the teacher says of them unmasked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from timm.models import VisionTransformer
from torch import nn

from anomalib_aoissl.plugin.removed_arguments import had_arguments
from anomalib_aoissl.pretraining.argument_rules import DINO_MOVED, IBOT_GONE
from anomalib_aoissl.pretraining.options import DINOCropOptions, HeadOptions, TeacherOptions
from anomalib_aoissl.pretraining.training.objective import Progress, Views
from anomalib_aoissl.pretraining.training.tokens import grid_of

from .dino import DINOPretraining, SelfDistillation, global_token
from .distillation import Center, masked_patch_loss, prototype_entropy, view_loss
from .masking import block_mask

_RATIOS, _MASKED = (0.1, 0.5), 0.5  # range of the share of masked patches, and share of masked crops: in the paper


class MaskedDistillation(SelfDistillation):
    """DINO's views with blocks of masked patches [0].

    The loss is `view_loss` (the student's global crops are masked) + `masked_patch_loss`.

    Args:
        vit: The student's transformer.
        crops: Number, size and zoom of the crops.
        head: Prototypes and the head before them, which is one for global tokens and patches.
        teacher: Temperature and momentum of the teacher.

    [0]: Zhou et al., iBOT: Image BERT Pre-Training with Online Tokenizer, 2021, arXiv 2111.07832.
    """

    name: ClassVar[str] = "ibot"

    def __init__(
        self, vit: VisionTransformer, crops: DINOCropOptions, head: HeadOptions, teacher: TeacherOptions
    ) -> None:
        super().__init__(vit, crops, head, teacher)
        self.mask_token = nn.Parameter(torch.zeros(vit.embed_dim))
        self.patch_center = Center(head.outputs)

    def masks(self, batch: int, grid: tuple[int, int], generator: torch.Generator) -> torch.Tensor:
        """Return masks ``[N, P]`` (bool): every second crop is masked, by a ratio from the range."""
        draws = torch.rand(batch, 2, generator=generator, device=generator.device).tolist()
        low, high = _RATIOS
        ratios = [low + (high - low) * size if chance < _MASKED else 0.0 for chance, size in draws]
        return torch.stack([block_mask(grid, ratio, generator).flatten() for ratio in ratios])

    def forward(self, views: Views, generator: torch.Generator, progress: Progress) -> dict[str, torch.Tensor]:
        """Return the losses of crops ``[B, V, C, h, w]`` and the teacher's entropy."""
        crops = views["global"]
        count, batch = crops.shape[1], crops.shape[0]
        images = crops.transpose(0, 1).flatten(0, 1)  # [2 B, C, h, w]
        masked = self.masks(len(images), grid_of(self.vit, images), generator)  # [2 B, P]
        prefix = self.vit.num_prefix_tokens
        with torch.no_grad():
            tokens = self._tokens(self.teacher, images, generator)
            taught = self.teacher_head(global_token(self.teacher, tokens)).unflatten(0, (count, batch))  # [2, B, K]
            taught_patches = self.teacher_head(tokens[:, prefix:][masked])  # [M, K]
        tokens = self._tokens(self.vit, images, generator, masked=masked, mask_token=self.mask_token)
        learnt = [self.head(global_token(self.vit, tokens)).unflatten(0, (count, batch))]
        learnt += [self.head(self._summary(self.vit, views[name], generator)) for name in views if name != "global"]
        learnt_patches = self.head(tokens[:, prefix:][masked])
        temperature = self.teacher_temperature(progress)
        view = view_loss(torch.cat(learnt), taught, self.center.value, teacher_temperature=temperature)
        patch = masked_patch_loss(
            learnt_patches, taught_patches, self.patch_center.value, masked, teacher_temperature=temperature
        )
        entropy = prototype_entropy(taught, self.center.value, temperature)
        self.center.add(taught)
        self.patch_center.add(taught_patches)
        return {"loss": view + patch, "view_loss": view, "patch_loss": patch, "teacher_entropy": entropy}

    def after_step(self, progress: Progress) -> None:
        """Move the teacher and both centres."""
        super().after_step(progress)
        self.patch_center.update()


@had_arguments(*IBOT_GONE, moved=DINO_MOVED)
@dataclass(eq=False, repr=False)
class IBOTPretraining(DINOPretraining):
    """Pretrains the model's encoder by masked self-distillation (iBOT) before the model's own training begins.

    Its arguments are those of `DINOPretraining`.
    """

    objective_name: ClassVar[str] = "ibot"

    def build_objective(self, vit: VisionTransformer) -> MaskedDistillation:
        """Return student and teacher around the transformer."""
        return MaskedDistillation(vit, self.crops, self.head, self.teacher)
