# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What an objective is to the training loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from timm.models import VisionTransformer
from torch import nn

from .augmentation import CropKind

Views = dict[str, torch.Tensor]
"""Crops by name, ``[B, V, C, h, w]``: B samples, V crops of each."""


@dataclass(frozen=True)
class Progress:
    """Where training stands.

    Attributes:
        step: Optimiser steps that are done.
        steps: Optimiser steps of the whole run.
    """

    step: int
    steps: int


class Objective(nn.Module, ABC):
    """A transformer and what it is trained with; the transformer alone is kept.

    Args:
        vit: The transformer that learns.
    """

    name: ClassVar[str]
    advice: ClassVar[str]
    """What to change where the embeddings collapse."""
    betas: ClassVar[tuple[float, float]] = (0.9, 0.95)
    """Of AdamW: decay of the running mean and of the running square of the gradient; those of the MAE paper."""
    weight_decay: ClassVar[float] = 0.05
    """Of AdamW."""

    def __init__(self, vit: VisionTransformer) -> None:
        super().__init__()
        self.vit = vit

    @property
    def result(self) -> VisionTransformer:
        """The transformer that is kept; an objective with a teacher returns the teacher."""
        return self.vit

    @abstractmethod
    def crop_kinds(self) -> dict[str, CropKind]:
        """Return the crops that `forward` wants of a sample, by name."""

    def prepare(self, images: torch.Tensor) -> None:
        """Take what is needed of some normalised pictures ``[N, C, H, W]`` before training starts."""
        del images

    @abstractmethod
    def forward(self, views: Views, generator: torch.Generator, progress: Progress) -> dict[str, torch.Tensor]:
        """Return the loss under "loss", and further scalars to watch, for normalised crops."""

    def before_step(self, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
        """Change gradients or the optimiser's numbers before it steps."""
        del optimizer, progress

    def after_step(self, progress: Progress) -> None:
        """Follow the transformer after the optimiser stepped."""
        del progress
