# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""iBOT: DINO, and the student also says of masked patches what the teacher says of them unmasked."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import torch
from timm.models import VisionTransformer
from torch import nn

from anomalib_aoissl.plugin.arguments import validate
from anomalib_aoissl.pretraining.argument_rules import IBOT_RULES
from anomalib_aoissl.pretraining.training.tokens import grid_of

from .dino import DINOPretraining, SelfDistillation, global_token
from .distillation import Center, masked_patch_loss, prototype_entropy
from .heads import PrototypeHead
from .masking import block_mask
from .objective import Progress, Views

__all__ = ["IBOTPretraining", "MaskedDistillation"]


class MaskedDistillation(SelfDistillation):
    """DINO's views with blocks of masked patches [0].

    The loss is `view_loss` (the student's global crops are masked) + patch_weight * `masked_patch_loss`.

    Args:
        vit: The student's transformer.
        mask_ratio: Range of the share of masked patches of a masked crop.
        mask_probability: Share of the global crops that are masked.
        shared_head: One head for global tokens and patches, as in the paper; else one for each.
        patch_weight: Weight of the patch loss.
        **distillation: As `SelfDistillation`.

    [0]: Zhou et al., iBOT: Image BERT Pre-Training with Online Tokenizer, 2021, arXiv 2111.07832.
    """

    name: ClassVar[str] = "ibot"

    def __init__(
        self,
        vit: VisionTransformer,
        *,
        mask_ratio: tuple[float, float],
        mask_probability: float,
        shared_head: bool,
        patch_weight: float,
        **distillation: Any,
    ) -> None:
        super().__init__(vit, **distillation)
        self.mask_ratio, self.mask_probability, self.patch_weight = mask_ratio, mask_probability, patch_weight
        self.mask_token = nn.Parameter(torch.zeros(vit.embed_dim))
        self.patch_center = Center(distillation["outputs"], distillation["center_momentum"])
        self.shared_head = shared_head
        if not shared_head:
            sizes = {name: distillation[name] for name in ("outputs", "hidden", "bottleneck")}
            self.patch_head = PrototypeHead(vit.embed_dim, **sizes)
            self.teacher_patch_head = copy.deepcopy(self.patch_head).requires_grad_(False)

    def masks(self, batch: int, grid: tuple[int, int], generator: torch.Generator) -> torch.Tensor:
        """Return masks ``[N, P]`` (bool): each crop is masked with the probability, by a ratio from the range."""
        draws = torch.rand(batch, 2, generator=generator, device=generator.device).tolist()
        low, high = self.mask_ratio
        ratios = [low + (high - low) * size if chance < self.mask_probability else 0.0 for chance, size in draws]
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
            taught_patches = self._teacher_patch_head()(tokens[:, prefix:][masked])  # [M, K]
        tokens = self._tokens(self.vit, images, generator, masked=masked, mask_token=self.mask_token)
        learnt = [self.head(global_token(self.vit, tokens)).unflatten(0, (count, batch))]
        learnt += [self.head(self._summary(self.vit, views[name], generator)) for name in views if name != "global"]
        learnt_patches = self._patch_head()(tokens[:, prefix:][masked])
        temperature = self.teacher_temperature(progress)
        view = self._view_loss(torch.cat(learnt), taught, temperature)
        patch = masked_patch_loss(
            learnt_patches,
            taught_patches,
            self.patch_center.value,
            masked,
            student_temperature=self.student_temperature,
            teacher_temperature=temperature,
        )
        entropy = prototype_entropy(taught, self.center.value, temperature)
        self.center.add(taught)
        self.patch_center.add(taught_patches)
        loss = view + self.patch_weight * patch
        return {"loss": loss, "view_loss": view, "patch_loss": patch, "teacher_entropy": entropy}

    def after_step(self, progress: Progress) -> None:
        """Move the teacher and both centres."""
        super().after_step(progress)
        self.patch_center.update()

    def _patch_head(self) -> PrototypeHead:
        """Return the student's head of patches."""
        return self.head if self.shared_head else self.patch_head

    def _teacher_patch_head(self) -> PrototypeHead:
        """Return the teacher's head of patches."""
        return self.teacher_head if self.shared_head else self.teacher_patch_head

    def _pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """Return teacher and student of each part."""
        pairs = super()._pairs()
        return pairs if self.shared_head else [*pairs, (self.teacher_patch_head, self.patch_head)]

    def _student_heads(self) -> list[PrototypeHead]:
        """Return the heads that learn."""
        return [self.head] if self.shared_head else [self.head, self.patch_head]


class IBOTPretraining(DINOPretraining):
    """Pretrains the model's encoder by masked self-distillation (iBOT) before the model's own training begins.

    Args:
        mask_ratio: Range of the share of masked patches of a masked crop; [0.1, 0.5] in the paper.
        mask_probability: Share of the global crops that are masked; 0.5 in the paper.
        shared_head: One head for global tokens and patches, as in the paper; else one for each.
        patch_weight: Weight of the patch loss; 1 in the paper.
        **dino: What DINO and all objectives take; see `DINOPretraining` and `PretrainingCallback`.
    """

    objective_name: ClassVar[str] = "ibot"

    def __init__(
        self,
        mask_ratio: tuple[float, float] = (0.1, 0.5),
        mask_probability: float = 0.5,
        shared_head: bool = True,
        patch_weight: float = 1.0,
        **dino: Any,
    ) -> None:
        validate(IBOT_RULES, locals())
        super().__init__(**dino)
        self.objective_arguments |= {
            "mask_ratio": (mask_ratio[0], mask_ratio[1]),
            "mask_probability": mask_probability,
            "shared_head": shared_head,
            "patch_weight": patch_weight,
        }

    def build_objective(self, vit: VisionTransformer) -> MaskedDistillation:
        """Return student and teacher around the transformer."""
        return MaskedDistillation(vit, **self.objective_arguments)
