# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Where a run of pretraining that was stopped goes on: the newest of its two checkpoints that is whole."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from anomalib_aoissl.encoder.checkpoints import CheckpointError, check_content, read_checkpoint

__all__ = ["LAST", "KeepsPrevious", "newest_whole"]

LAST, _PREVIOUS = "last.ckpt", "previous.ckpt"

logger = logging.getLogger(__name__)


class KeepsPrevious(Callback):
    """Keeps the checkpoint before the last one, in case the last one is damaged.

    Args:
        folder: Folder of both.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Make the last checkpoint the previous one, just before another is written."""
        del pl_module, checkpoint
        if trainer.is_global_zero and (self.folder / LAST).is_file():
            (self.folder / LAST).replace(self.folder / _PREVIOUS)


def newest_whole(folder: Path, module: LightningModule) -> tuple[str | None, int]:
    """Return the checkpoint that a run goes on from, and its epochs; None and 0 where it starts at the beginning.

    The log says which.

    Args:
        folder: Folder of the run's checkpoints.
        module: What is trained, whose weights a checkpoint must hold.
    """
    for path in (folder / LAST, folder / _PREVIOUS):
        if not path.is_file():
            continue
        try:
            epoch = _checked(path, module)["epoch"]
        except CheckpointError as error:
            logger.warning("Pretraining does not resume from a damaged checkpoint: %s", error)
            continue
        logger.info("Pretraining resumes from %s.", path)
        return str(path), epoch + 1  # Lightning counts an epoch when its last callback has run, after the writing
    if folder.is_dir() and any(folder.glob("*.ckpt")):
        logger.warning("Pretraining starts over: %s holds no checkpoint that is whole.", folder)
    return None, 0


def _checked(path: Path, module: LightningModule) -> dict[str, Any]:
    """Return the content of a checkpoint that is whole and holds the weights of the module.

    Raises:
        CheckpointError: If it is not.
    """
    content = read_checkpoint(path)
    wanted = {name: tensor.shape for name, tensor in module.state_dict().items()}
    found = {name: getattr(tensor, "shape", None) for name, tensor in content["state_dict"].items()}
    if found != wanted or not {"optimizer_states", "callbacks", "loops", "epoch"} <= content.keys():
        msg = f"{path}: holds the state of another run."
        raise CheckpointError(msg)
    check_content(content, str(path))
    return content
