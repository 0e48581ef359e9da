# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Callbacks of a run: the pixel head that it starts from, when it validates, which weights are kept."""

from __future__ import annotations

import logging
import math
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from anomalib.callbacks.checkpoint import ModelCheckpoint
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.callbacks import ModelCheckpoint as LightningCheckpoint

from .budget import progress
from .losses import root_weights
from .options import TrainingOptions
from .starting import start_from_head

if TYPE_CHECKING:
    from anomalib_aoissl.data.dataset import SegmentationDataset

    from .lightning_model import AOISSLSegmenter

MONITOR = "val_mean_iou"
"""Metric that picks the checkpoint and stops a run."""

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


class HeadStart(Callback):
    """Fits the pixel head to the training images before the first step, and gives the model its examples.

    Its time counts towards the trainer's budget. Each process fits the same head.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fit the head.

        Raises:
            ValueError: If weights are to be picked by validation images that are not there.
        """
        check_monitors(trainer)
        module = cast("AOISSLSegmenter", pl_module)
        dataset: SegmentationDataset = trainer.train_dataloader.dataset  # type: ignore[union-attr]
        module.model.eval()
        module.examples, counts = start_from_head(module, dataset)
        module.class_weights = root_weights(counts).to(module.device)
        module.model.train()
        module.begun = 0.0 if trainer.global_step else progress(trainer)


class SpacedValidation(Callback):
    """Validates so many times in a run, evenly spaced over its budget and at its end, and after the very first step.

    That step is taken at a hundredth of the learning rate: what is validated then is the pixel head, which
    `BestCheckpoint` keeps where training makes nothing better.

    Lightning validates after each epoch, which few labels make a step or two long; a run would then validate for most
    of its time. Where the trainer's own arguments say how often to validate, they hold.

    Args:
        count: Validations in a run.
    """

    def __init__(self, count: int) -> None:
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

    def on_train_batch_end(self, trainer: Trainer, *args: object, **kwargs: object) -> None:
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


def training_callbacks(trainer: Trainer, options: TrainingOptions) -> list[Callback]:
    """Return the callbacks that the options ask for: validation, pixel head, checkpoint."""
    callbacks: list[Callback] = [SpacedValidation(options.validations), HeadStart()]
    checkpoint = own_checkpoint(trainer, options.select)
    return callbacks if checkpoint is None else [*callbacks, checkpoint]


def check_monitors(trainer: Any) -> None:
    """Validate that there are validation images where the weights are picked by them.

    Raises:
        ValueError: If there are no validation images.
    """
    monitors = [type(c).__name__ for c in trainer.callbacks if getattr(c, "monitor", None) == MONITOR]
    empty = trainer.val_dataloaders is not None and not sum(trainer.num_val_batches)  # None: not loaded yet
    if monitors and (empty or not trainer.enable_validation):
        msg = (
            f"There is no validation image, but {' and '.join(monitors)} goes by {MONITOR}. Give the data images for "
            "validation (--data.val_ratio, --data.val_devices), or keep the last weights: --model.training.select last."
        )
        raise ValueError(msg)


def own_checkpoint(trainer: Trainer, select: str) -> ModelCheckpoint | None:
    """Return the checkpoint callback in place of the one that the engine or Lightning adds by itself.

    None where there is none, or the user has given one.
    """
    if len(trainer.checkpoint_callbacks) != 1 or trainer.state.fn != "fit":
        return None
    callback = trainer.checkpoint_callbacks[0]
    if type(callback) is not ModelCheckpoint and type(callback) is not LightningCheckpoint:
        return None
    if callback.monitor is not None or callback.filename not in {None, "model"}:
        return None
    return BestCheckpoint(callback.dirpath) if select == "best" else LastCheckpoint(callback.dirpath)
