# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Callbacks of a run: the probe it starts from, when it validates, which weights are kept, averaged weights."""

from __future__ import annotations

import logging
import math
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from anomalib.callbacks.checkpoint import ModelCheckpoint
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping, WeightAveraging
from lightning.pytorch.callbacks import ModelCheckpoint as LightningCheckpoint

from .heads import linear_part
from .probe import fit_probe, plain_samples
from .schedule import progress

__all__ = [
    "MONITOR",
    "AveragedWeights",
    "BestCheckpoint",
    "LastCheckpoint",
    "LinearProbe",
    "SpacedValidation",
    "check_monitors",
    "early_stopping",
    "own_checkpoint",
    "training_callbacks",
]

MONITOR = "val_mean_iou"
"""Metric that picks the checkpoint and stops a run."""

_VIEWS = 40  # of the labelled images in all, above which each has fewer; one of each at least

logger = logging.getLogger(__name__)


class BestCheckpoint(ModelCheckpoint):
    """Keeps the weights with the largest validation mean IoU as ``model.ckpt``, and takes them when training ends.

    Args:
        dirpath: Folder of the checkpoint.
    """

    def __init__(self, dirpath: str | Path | None = None) -> None:
        super().__init__(
            dirpath=dirpath,
            filename="model",
            monitor=MONITOR,
            mode="max",
            save_on_train_epoch_end=False,
            auto_insert_metric_name=False,
        )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Load the best weights, so that the test after training sees them."""
        super().on_train_end(trainer, pl_module)
        if not self.best_model_path:
            return
        checkpoint = trainer.strategy.checkpoint_io.load_checkpoint(self.best_model_path, weights_only=True)
        pl_module.load_state_dict(checkpoint["state_dict"])
        logger.info("Took the weights of step %d, %s %.4f.", checkpoint["global_step"], MONITOR, self.best_model_score)


class LastCheckpoint(ModelCheckpoint):
    """Keeps the weights at the end of training, as ``model.ckpt``, and on the way those of the last minutes.

    Args:
        dirpath: Folder of the checkpoint.
    """

    CHECKPOINT_NAME_LAST = "model"

    def __init__(self, dirpath: str | Path | None = None) -> None:
        super().__init__(
            dirpath=dirpath,
            save_last=True,
            save_top_k=0,
            train_time_interval=timedelta(minutes=5),
            enable_version_counter=False,
        )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the weights as they are now."""
        del pl_module
        self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))


class AveragedWeights(WeightAveraging):
    """An exponential average of the weights over the steps, which validation, checkpoint and test use.

    The average forgets faster at first, so that a short run does not end near its random start [0].

    [0]: Polyak and Juditsky, 1992; the warm-up (1 + n) / (10 + n) as in timm's ``ModelEmaV3``.

    Args:
        decay: Share of the average that stays in each step, in (0, 1).
    """

    def __init__(self, decay: float) -> None:
        if not 0 < decay < 1:
            msg = f"ema_decay={decay} must lie between 0 and 1; 0.99 averages over the last hundred steps."
            raise ValueError(msg)

        def average(averaged: torch.Tensor, current: torch.Tensor, steps: torch.Tensor | int) -> torch.Tensor:
            count = int(steps)
            return torch.lerp(current, averaged, min(decay, (1 + count) / (10 + count)))

        super().__init__(use_buffers=False, avg_fn=average)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Copy the model once it has its head: callbacks are set up before the model."""
        if stage == "fit":
            pl_module.setup(stage)
        super().setup(trainer, pl_module, stage)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Copy the model anew, since the checkpoint may have built another one, and take over the average."""
        if self._average_model is not None:
            super().setup(trainer, pl_module, "fit")
        super().on_load_checkpoint(trainer, pl_module, checkpoint)


class LinearProbe(Callback):
    """Fits the head's linear part to the frozen features of the training images, where it has no weights yet.

    Each process reads its part of the images; their sums are joined, so that all have the same weights.

    Args:
        views: Views of each image, see `shifted_views`; fewer where there are many images.
    """

    def __init__(self, views: int) -> None:
        self.views = views

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fit before the first step: the time counts, and weights of a checkpoint stay."""
        module: Any = pl_module
        linear = linear_part(module.model.head)
        if linear is None or bool(linear.classify.weight.any()):
            return
        dataset: Any = trainer.train_dataloader.dataset  # type: ignore[union-attr]
        indices = range(trainer.global_rank, len(dataset), trainer.world_size)
        transform = getattr(module.pre_processor, "transform", None)
        views = min(self.views, max(_VIEWS // len(dataset), 1))
        logger.info("Fitting the linear probe to %d labelled images, %d views of each.", len(dataset), views)
        training = module.model.training
        module.model.eval()

        def extract(images: torch.Tensor) -> list[torch.Tensor]:
            with trainer.precision_plugin.forward_context():  # the sums that follow need full precision
                features: list[torch.Tensor] = module.model.extract(images)
            return features

        fit_probe(
            linear,
            extract,
            plain_samples(dataset, indices, transform, module.device),
            views=views,
            class_weights=module.loss.weights,
            reduce=lambda sums: trainer.strategy.reduce(sums, reduce_op="sum"),
        )
        module.model.train(training)


class SpacedValidation(Callback):
    """Validates so many times in a run, evenly spaced over its budget and at its end, and after the very first step.

    With a warm-up that step is taken at a hundredth of the learning rate: what is validated then is the linear probe,
    which `BestCheckpoint` keeps where training from it makes nothing better.

    Lightning validates after each epoch, which few labels make a step or two long; a run would then validate for most
    of its time. Where the trainer's own arguments say how often to validate, they hold.

    Args:
        count: Validations in a run.

    Raises:
        ValueError: If the count is below 1.
    """

    def __init__(self, count: int) -> None:
        if count < 1:
            msg = f"validations={count} must be at least 1; --trainer.limit_val_batches 0 leaves out validation."
            raise ValueError(msg)
        self.count = count
        self._active = False
        self._reached = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over where nothing else was asked for."""
        del pl_module
        by_time = getattr(trainer, "_val_check_time_interval", None)
        self._active = trainer.check_val_every_n_epoch == 1 and trainer.val_check_interval == 1.0 and by_time is None
        if self._active:
            trainer.check_val_every_n_epoch = None  # the trainer then counts batches without regard to epochs
            trainer.val_check_batch = sys.maxsize
            self._reached = math.floor(progress(trainer) * self.count) if trainer.global_step else -1

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Let the trainer validate where another part of the budget is used up."""
        del args, kwargs
        if not self._active:
            return
        reached = math.floor(progress(trainer) * self.count + 1e-9)
        trainer.val_check_batch = 1 if reached > self._reached else sys.maxsize
        self._reached = reached

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the trainer as it was."""
        del pl_module
        if self._active:
            trainer.check_val_every_n_epoch = 1


def early_stopping(patience: int) -> EarlyStopping:
    """Return the callback that ends a run after so many validations without a better mean IoU.

    Raises:
        ValueError: If the patience is below 1.
    """
    if patience < 1:
        msg = f"early_stopping={patience} must be at least 1 validation, or be left out."
        raise ValueError(msg)
    return EarlyStopping(MONITOR, mode="max", patience=patience, check_on_train_epoch_end=False)


def training_callbacks(trainer: Trainer, arguments: Any) -> list[Callback]:
    """Return the callbacks that the model's arguments ask for: validation, probe, averaging, stopping, checkpoint."""
    callbacks: list[Callback] = [SpacedValidation(arguments.validations)]
    if arguments.probe:
        callbacks.append(LinearProbe(arguments.probe))
    if arguments.ema_decay is not None:
        callbacks.append(AveragedWeights(arguments.ema_decay))
    if arguments.early_stopping is not None:
        callbacks.append(early_stopping(arguments.early_stopping))
    checkpoint = own_checkpoint(trainer, arguments.select)
    return callbacks if checkpoint is None else [*callbacks, checkpoint]


def check_monitors(trainer: Any) -> None:
    """Refuse a run that picks its weights by validation images that are not there.

    Raises:
        ValueError: If there are no validation images.
    """
    monitors = [type(c).__name__ for c in trainer.callbacks if getattr(c, "monitor", None) == MONITOR]
    empty = trainer.val_dataloaders is not None and not sum(trainer.num_val_batches)  # None: not loaded yet
    if monitors and (empty or not trainer.enable_validation):
        msg = (
            f"There is no validation image, but {' and '.join(monitors)} goes by {MONITOR}. Give the data images for "
            "validation (--data.val_ratio, --data.val_devices), or use the whole budget and keep the last weights: "
            "--model.select last, without --model.early_stopping."
        )
        raise ValueError(msg)


def own_checkpoint(trainer: Trainer, select: str) -> ModelCheckpoint | None:
    """Return the checkpoint callback in place of the one that the engine or Lightning adds by itself.

    None where there is none, or the user has given one.
    """
    if len(trainer.checkpoint_callbacks) != 1 or trainer.state.fn != "fit":
        return None
    callback: Any = trainer.checkpoint_callbacks[0]
    added = type(callback) in {ModelCheckpoint, LightningCheckpoint}
    if not added or callback.monitor is not None or callback.filename not in {None, "model"}:
        return None
    return BestCheckpoint(callback.dirpath) if select == "best" else LastCheckpoint(callback.dirpath)
