# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Watches a run: probe, effective rank, pictures; keeps the best encoder and stops a collapse."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torchvision.utils import save_image

from anomalib_aoissl.encoder.vit import PatchEncoder
from anomalib_aoissl.pretraining.training.initialization import even_last_norm
from anomalib_aoissl.pretraining.training.objective import Objective

from .measures import ImageAndMask, probe_mean_iou, spectrum_entropy

_COLLAPSE_RANK = 2.0  # effective rank under which an encoder counts as collapsed
_COLLAPSE_CHECKS = 3  # measures in a row under it that stop a run


class CollapseError(RuntimeError):
    """The embeddings of all patches became nearly equal."""


@dataclass(frozen=True)
class Labelled:
    """Labelled images of the probe.

    Attributes:
        bank: Images that are searched.
        queries: Images that are predicted.
        num_classes: C, background included.
    """

    bank: Sequence[ImageAndMask]
    queries: Sequence[ImageAndMask]
    num_classes: int


class Watcher(Callback):
    """Measures the encoder before training, every n epochs, and at the end.

    Args:
        encoder: The encoder as it was before training; its weights are replaced by those to be measured.
        images: Pictures ``[N, C, H, W]`` uint8 whose embeddings' rank is taken, and the last norm evened out.
        labelled: Images of the probe, or None for no probe.
        every: Epochs between two measures.
        picture_folder: Where pictures of an objective that draws any are written.
        seed: Seed of the pictures' masks.
    """

    def __init__(
        self,
        encoder: PatchEncoder,
        images: torch.Tensor,
        labelled: Labelled | None,
        *,
        every: int,
        picture_folder: Path | None = None,
        seed: int = 0,
    ) -> None:
        self.encoder = copy.deepcopy(encoder).eval()
        self.images, self.labelled = images, labelled
        self.every, self.picture_folder, self.seed = every, picture_folder, seed
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, torch.Tensor] = {}
        self.best_index = 0
        self._earlier, self._started = 0.0, time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds of training so far, with those before the run was stopped."""
        return self._earlier + time.monotonic() - self._started

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs: the measures and the best weights."""
        return {"history": self.history, "best": self.best, "best_index": self.best_index}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the measures and the best weights of the run that was stopped."""
        self.history, self.best = state_dict["history"], state_dict["best"]
        self.best_index = state_dict["best_index"]
        self._earlier = self.history[-1].get("seconds", 0.0)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the starting weights, unless the run resumes."""
        self._started = time.monotonic()
        if not self.history:
            self._check(trainer, pl_module, epoch=0)

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        """Note the loss of the first batch."""
        if self.history[0]["loss"] is None:
            self.history[0]["loss"] = float(trainer.callback_metrics["loss"])

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure every n epochs, log, and stop a collapse.

        Raises:
            CollapseError: If the effective rank was too low several times in a row.
        """
        if (trainer.current_epoch + 1) % self.every:
            return
        record = self._check(trainer, pl_module, epoch=trainer.current_epoch + 1)
        values = {name: record[name] for name in ("mean_iou", "rank", "entropy") if record[name] is not None}
        pl_module.log_dict(values, prog_bar=True)
        self._stop_collapse(pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the last weights where the last epoch did not.

        Raises:
            CollapseError: If the effective rank was too low several times in a row.
        """
        if self.history[-1]["step"] != trainer.global_step:
            self._check(trainer, pl_module, epoch=trainer.current_epoch)
            self._stop_collapse(pl_module)

    def _check(self, trainer: Trainer, pl_module: LightningModule, *, epoch: int) -> dict[str, Any]:
        """Measure on the first rank, tell the others, and keep the weights if they are the best so far."""
        objective = cast("Objective", pl_module.objective)
        self.encoder.to(pl_module.device)
        if trainer.global_step:  # before training the encoder is measured as it was given
            self.encoder.vit.load_state_dict(objective.result.state_dict())
            even_last_norm(self.encoder.vit, self._normalised(self.images, pl_module.device))
        record: dict[str, Any] = {}
        if trainer.is_global_zero:
            loss = trainer.callback_metrics.get("loss") if trainer.global_step else None
            record = {"epoch": epoch, "step": trainer.global_step, "loss": None if loss is None else float(loss)}
            record["seconds"] = round(self.seconds, 1)
            record |= self._measure(pl_module.device)
            self._draw(objective, pl_module, trainer)
        record = trainer.strategy.broadcast(record)
        self.history.append(record)
        best = self.history[self.best_index]["mean_iou"]
        if len(self.history) == 1 or _is_better(record["mean_iou"], best):
            state = self.encoder.vit.state_dict()
            self.best = {name: value.detach().cpu().clone() for name, value in state.items()}
            self.best_index = len(self.history) - 1
        return record

    def _measure(self, device: torch.device) -> dict[str, Any]:
        """Return probe and spectrum of the encoder."""
        with torch.no_grad():
            parts = [self.encoder(self._normalised(image, device)).flatten(0, 1) for image in self.images.split(1)]
        embeddings = torch.cat(parts).float()
        entropy = spectrum_entropy(embeddings)
        result: dict[str, Any] = {"rank": math.exp(entropy), "entropy": entropy, "mean_iou": None}
        if self.labelled is not None:
            bank, queries = (
                [(image.to(device), mask.to(device)) for image, mask in items]
                for items in (self.labelled.bank, self.labelled.queries)
            )
            probe = probe_mean_iou(self.encoder, bank, queries, num_classes=self.labelled.num_classes)
            if not math.isnan(probe.mean_iou):  # of masks that are all ignored, which compare with nothing
                result |= {"mean_iou": probe.mean_iou, "class_iou": list(probe.class_iou)}
        return result

    def _normalised(self, images: torch.Tensor, device: torch.device) -> torch.Tensor:
        """Return uint8 pictures as the encoder reads them."""
        return self.encoder.normalised(images.to(device).float() / 255)

    def _draw(self, objective: Objective, pl_module: LightningModule, trainer: Trainer) -> None:
        """Write input, masked input and reconstruction, where the objective draws them."""
        draw = getattr(objective, "pictures", None)
        if draw is None or self.picture_folder is None:
            return
        device = pl_module.device
        generator = torch.Generator(device).manual_seed(self.seed)
        strips = draw(self._normalised(self.images[:4], device), generator).cpu()
        std, mean = (torch.tensor(v).view(-1, 1, 1) for v in (self.encoder.std, self.encoder.mean))
        strips = (strips * std + mean).clamp(0, 1)[:, :3]
        if strips.shape[1] == 2:
            strips = strips[:, :1]
        self.picture_folder.mkdir(parents=True, exist_ok=True)
        path = self.picture_folder / f"step_{trainer.global_step:07d}.png"
        save_image(strips, path, nrow=1)
        for logger in trainer.loggers:
            if hasattr(logger, "add_image"):
                logger.add_image(path, trainer.global_step)

    def _stop_collapse(self, pl_module: LightningModule) -> None:
        """Raise where the last measures all were under the threshold."""
        recent = [record["rank"] for record in self.history[1:][-_COLLAPSE_CHECKS:]]
        if len(recent) < _COLLAPSE_CHECKS or any(rank >= _COLLAPSE_RANK for rank in recent):
            return
        objective = cast("Objective", pl_module.objective)
        ranks = ", ".join(f"{rank:.1f}" for rank in recent)
        msg = (
            f"{objective.name}: the patch embeddings collapse. Their effective rank was {ranks} at the last "
            f"{len(recent)} checks; at least {_COLLAPSE_RANK} is wanted, and it was "
            f"{self.history[0]['rank']:.1f} before training. What to do: {objective.advice}."
        )
        raise CollapseError(msg)


def _is_better(found: float | None, best: float | None) -> bool:
    """Tell whether a probe beats the best so far; None, where nothing was probed, gives way to what comes later."""
    return found is None or best is None or found > best
