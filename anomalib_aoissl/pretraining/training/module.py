# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The training loop of an objective as a Lightning module, and its data loader."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch.utils.data import DataLoader, DistributedSampler

from .augmentation import Light
from .images import CropDataset
from .objective import Objective, Progress, Views
from .schedule import warmup_cosine

_RANK_STRIDE, _BATCH_STRIDE = 1_000_003, 7919  # keep the seeds of ranks and of accumulated batches apart


class PretrainingModule(LightningModule):
    """Trains an objective on crops; the randomness of a step depends on seed, step and rank alone.

    Args:
        objective: The objective.
        learning_rate: Its peak.
        warmup: Share of the steps in which it grows from 0.
        max_steps: Optimiser steps after which to stop; -1 for no limit.
        light: Random light on every batch.
        mean: Of each input plane.
        std: Of each input plane.
        seed: Seed of masks and light.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        objective: Objective,
        *,
        learning_rate: float,
        warmup: float,
        max_steps: int = -1,
        light: Light,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        seed: int,
    ) -> None:
        super().__init__()
        self.objective = objective
        self.learning_rate, self.warmup, self.max_steps = learning_rate, warmup, max_steps
        self.light = light
        self.seed = seed
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)
        self._stepped = 0

    @property
    def progress(self) -> Progress:
        """Where training stands."""
        steps = max(int(self.trainer.estimated_stepping_batches), 1)
        return Progress(self.trainer.global_step, steps if self.max_steps == -1 else min(steps, self.max_steps))

    def generator(self, batch_index: int) -> torch.Generator:
        """Return the generator of a batch; a resumed run draws what the unbroken one would have drawn."""
        seed = (self.seed, self.trainer.global_step * _BATCH_STRIDE + batch_index, self.global_rank * _RANK_STRIDE)
        return torch.Generator(self.device).manual_seed(hash(seed) & (2**63 - 1))

    def normalised(self, views: Views, generator: torch.Generator) -> Views:
        """Return uint8 crops as normalised floats under random light."""
        done = {}
        for name, crops in views.items():
            lit = self.light(crops.flatten(0, 1).float() / 255, generator)
            done[name] = ((lit - self.mean) / self.std).view(crops.shape)
        return done

    def training_step(self, batch: Views, batch_index: int) -> torch.Tensor:
        """Return the loss of a batch of crops."""
        generator = self.generator(batch_index)
        values = self.objective(self.normalised(batch, generator), generator, self.progress)
        size = len(next(iter(batch.values())))
        self.log_dict({name: value.detach() for name, value in values.items()}, prog_bar=True, batch_size=size)
        return values["loss"]

    def configure_optimizers(self) -> Any:
        """Return AdamW [0] with warm-up and cosine, step by step; biases, norms, tokens and positions do not decay.

        [0]: Loshchilov and Hutter, Decoupled Weight Decay Regularization, 2017, arXiv 1711.05101.
        """
        decay, betas = self.objective.weight_decay, self.objective.betas
        weights = [p for p in self.parameters() if p.requires_grad]
        decayed = [p for p in weights if p.ndim > 1 and p.shape[0] > 1]  # tokens and positions are [1, T, D]
        others = [p for p in weights if not (p.ndim > 1 and p.shape[0] > 1)]
        groups = [{"params": decayed, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=self.learning_rate, betas=betas)
        steps = self.progress.steps
        warmup = round(self.warmup * steps)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: warmup_cosine(step, steps, warmup))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Let the objective change gradients and numbers."""
        self.objective.before_step(optimizer, self.progress)

    def on_train_batch_end(self, *args: object, **kwargs: object) -> None:
        """Let the objective follow, once for each optimiser step; half precision skips some. Stop after the last."""
        del args, kwargs
        if self.trainer.global_step != self._stepped:
            self._stepped = self.trainer.global_step
            self.objective.after_step(self.progress)
        # Lightning's own max_steps takes a checkpoint of an epoch's end for one within it, and adds a batch to it
        self.trainer.should_stop |= self.trainer.global_step == self.max_steps

    def on_train_start(self) -> None:
        """Begin to count at the step that a checkpoint left off."""
        self._stepped = self.trainer.global_step


class _EpochSampler(DistributedSampler[Any]):
    """Shuffles by seed and epoch, shares out to the ranks, and counts the indices on over the epochs."""

    def __iter__(self) -> Iterator[int]:
        first = self.epoch * len(self.dataset)  # type: ignore[arg-type]
        return (first + index for index in super().__iter__())


def crop_loader(
    dataset: CropDataset, *, batch_size: int, num_workers: int, rank: int, world_size: int, pin_memory: bool
) -> DataLoader[Any]:
    """Return the loader of this rank's share of the crops, without an incomplete batch unless it is the only one."""
    sampler = _EpochSampler(dataset, num_replicas=world_size, rank=rank, shuffle=True, seed=dataset.seed)
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,  # each keeps what it decoded
        drop_last=len(sampler) >= batch_size,
        pin_memory=pin_memory,
    )
