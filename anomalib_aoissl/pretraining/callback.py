# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The callback that pretrains a model's encoder before the model's own training: when, on what, and what is kept."""

from __future__ import annotations

import inspect
import logging
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch
from filelock import FileLock, Timeout
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from timm.models import VisionTransformer

from anomalib_aoissl.data.describing.file_format import WHOLE_FILES, FileFormat
from anomalib_aoissl.encoder.architecture import SHIPPED_TRANSFORMER
from anomalib_aoissl.encoder.base import Encoder
from anomalib_aoissl.encoder.vit import PatchEncoder
from anomalib_aoissl.plugin.arguments import ArgumentError, validate
from anomalib_aoissl.pretraining.objectives.objective import Objective
from anomalib_aoissl.pretraining.training.artefact import (
    cache_folder,
    cache_key,
    check_replaceable,
    copy_folder,
    load_weights,
)
from anomalib_aoissl.pretraining.training.augmentation import Light
from anomalib_aoissl.pretraining.training.images import ImageFiles, fingerprint, pretraining_images
from anomalib_aoissl.pretraining.training.module import Optimisation
from anomalib_aoissl.pretraining.training.run import Run
from anomalib_aoissl.pretraining.watching.labelled import probe_images
from anomalib_aoissl.pretraining.watching.watcher import Labelled

from .argument_rules import RULES, Start

__all__ = ["PretrainingCallback", "Start"]

_TRAINED_RATE = 1e-4

logger = logging.getLogger(__name__)


class PretrainingCallback(Callback):
    """Pretrains ``pl_module.model.encoder`` in ``setup("fit")``; the model's own fit then goes on.

    The images are those of the datamodule's ``unlabelled_dir``, else its training images; masks are read for the probe
    alone. The same run again (encoder, weights, arguments, images) loads the cached result. Nothing happens when the
    model's run resumes from a checkpoint.

    Args:
        max_epochs: Passes over the images.
        max_steps: Optimiser steps after which to stop before that; -1 for no limit.
        batch_size: Samples of a batch on each device.
        accumulate: Batches whose gradients are summed up before a step.
        crops_per_image: Samples that a picture gives in an epoch.
        start: Patch embedding and positions that training starts from: "given", "whitened" (principal components of
            the pictures' patches, and sine-cosine positions), or "auto": whitened for an encoder with random weights.
        start_noise_floor: Noise of a pixel for "whitened", unit of the normalised images.
        position_scale: Amplitude of the positions for "whitened".
        even_norm: Set the last layer norm so that each dim of the embeddings has mean 0 and deviation 1.
        structure: Share of the crops that are placed by gradient energy, in [0, 1]; the others are placed uniformly.
        gain: Random change of the light's gain, as the exponent of e.
        gamma: Random change of its gamma, as the exponent of e.
        noise: Random noise added to the crops, standard deviation where white is 1.
        blur: Random blur of the crops, largest sigma in px.
        learning_rate: Peak of the learning rate; null: that of the objective from random weights, and 1e-4 from trained
            ones, which a larger one takes apart.
        weight_decay: Of AdamW.
        betas: Of AdamW.
        warmup: Share of the steps in which the rate grows from 0.
        gradient_clip: Largest norm of the gradient; 0 for no limit.
        num_workers: Processes that cut crops; 0 cuts them in the training process, which is quick from memory.
        memory_mb: Memory for decoded pictures, MB, of each process that cuts crops.
        seed: Seed of everything random.
        probe_every: Epochs between two measures of the encoder; also between two checkpoints.
        probe_images: Labelled images of the probe on either side, bank and queries; 0 for no probe.
        collapse_rank: Effective rank of the patch embeddings under which an encoder counts as collapsed.
        collapse_checks: Measures in a row under that rank that stop the run.
        save_to: Folder to copy the artefact to, for ``local-dir:``: a new or empty one, or that of an older artefact,
            which is replaced.
        cache_dir: Where results are kept; default: ANOMALIB_AOISSL_CACHE, else the user's cache folder.
        progress_bar: Show a progress bar.

    Raises:
        ValueError: If a number is out of its range.
    """

    objective_name: ClassVar[str]
    scratch_rate: ClassVar[float]
    objective_arguments: dict[str, Any]

    def __init__(
        self,
        max_epochs: int = 200,
        max_steps: int = -1,
        batch_size: int = 32,
        accumulate: int = 1,
        crops_per_image: int = 1,
        start: Start = "auto",
        start_noise_floor: float = 0.1,
        position_scale: float = 0.3,
        even_norm: bool = True,
        structure: float = 0.8,
        gain: float = 0.3,
        gamma: float = 0.3,
        noise: float = 0.0,
        blur: float = 0.0,
        learning_rate: float | None = None,
        weight_decay: float = 0.05,
        betas: tuple[float, float] = (0.9, 0.95),
        warmup: float = 0.1,
        gradient_clip: float = 1.0,
        num_workers: int = 0,
        memory_mb: float = 2048,
        seed: int = 0,
        probe_every: int = 10,
        probe_images: int = 5,
        collapse_rank: float = 2.0,
        collapse_checks: int = 3,
        save_to: str | Path | None = None,
        cache_dir: str | Path | None = None,
        progress_bar: bool = True,
    ) -> None:
        super().__init__()
        validate(RULES, locals())
        self.max_epochs, self.max_steps = max_epochs, max_steps
        self.batch_size, self.accumulate, self.crops_per_image = batch_size, accumulate, crops_per_image
        self.start, self.start_noise_floor = start, start_noise_floor
        self.position_scale, self.even_norm = position_scale, even_norm
        self.structure, self.gradient_clip, self.seed = structure, gradient_clip, seed
        self.light = Light(gain=gain, gamma=gamma, noise=noise, blur=blur)
        self.learning_rate = learning_rate
        self.weight_decay, self.betas, self.warmup = weight_decay, (betas[0], betas[1]), warmup
        self.num_workers, self.memory_mb = num_workers, memory_mb
        self.probe_every, self.probe_images = probe_every, probe_images
        self.collapse_rank, self.collapse_checks = collapse_rank, collapse_checks
        self.save_to, self.cache_dir, self.progress_bar = save_to, cache_dir, progress_bar
        self._done: LightningModule | None = None
        self.summary = ""
        """One paragraph about the last run; empty before it."""

    @abstractmethod
    def build_objective(self, vit: VisionTransformer) -> Objective:
        """Return the objective around a transformer; called with a seeded global generator."""

    def optimisation_from(self, *, untrained: bool) -> Optimisation:
        """Return the numbers of the optimiser, for an encoder with random weights or with trained ones."""
        own = self.scratch_rate if untrained else _TRAINED_RATE
        rate = own if self.learning_rate is None else self.learning_rate
        return Optimisation(rate, self.weight_decay, self.betas, self.warmup)

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments that the result depends on, plain data."""
        numbers = ("max_epochs", "max_steps", "batch_size", "accumulate", "crops_per_image", "structure")
        others = ("gradient_clip", "seed", "probe_every", "probe_images")
        optimiser = ("learning_rate", "weight_decay", "betas", "warmup")
        start = ("start", "start_noise_floor", "position_scale", "even_norm")
        plain = {name: getattr(self, name) for name in (*numbers, *start, *others, *optimiser)}
        return {**plain, **vars(self.light), **self.objective_arguments}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Pretrain the encoder before the fit.

        Raises:
            ValueError: If the model has no encoder of ours.
        """
        if stage != "fit":
            return
        if pl_module is self._done:
            logger.info("Pretraining is skipped: this callback has pretrained this model before.")
            return
        resumed = _checkpoint_of(trainer)
        if resumed:
            logger.info("Pretraining is skipped: the run resumes from %s, which holds the encoder.", resumed)
            return
        encoder = getattr(getattr(pl_module, "model", None), "encoder", None)
        if isinstance(encoder, Encoder) and not isinstance(encoder, PatchEncoder):
            msg = (
                f"{type(self).__name__} trains a vision transformer, and model.encoder is "
                f"{encoder.describe()['architecture']}. Give the model another one: "
                f"--model.encoder.architecture {SHIPPED_TRANSFORMER}."
            )
            raise ArgumentError(msg)
        if not isinstance(encoder, PatchEncoder):
            msg = (
                f"{type(self).__name__} pretrains model.encoder of this package's models; {type(pl_module).__name__} "
                "has none. Use AOISSLRetrieval or AOISSLSegmenter; for another model pretrain with save_to=folder "
                "first, and give it backbone=local-dir:folder."
            )
            raise ValueError(msg)  # noqa: TRY004 - the model is of a right type, but has no such encoder
        datamodule = getattr(trainer, "datamodule", None)
        self.pretrain(
            encoder,
            pretraining_images(datamodule),
            labelled=probe_images(datamodule, self.probe_images),
            file_format=getattr(getattr(datamodule, "train_data", None), "file_format", WHOLE_FILES),
            trainer=trainer,
        )
        self._done = pl_module

    def pretrain(
        self,
        encoder: PatchEncoder,
        images: Sequence[ImageFiles],
        *,
        labelled: Labelled | None = None,
        file_format: FileFormat = WHOLE_FILES,
        trainer: Trainer | None = None,
        trainer_arguments: Mapping[str, Any] | None = None,
    ) -> Path:
        """Pretrain an encoder in place, or load the cached result, and return the folder of the artefact.

        Args:
            encoder: The encoder; only its weights change.
            images: Files of each picture.
            labelled: Images of the probe.
            file_format: How the files of a picture are read.
            trainer: Trainer whose devices, precision and strategy are used.
            trainer_arguments: Arguments of Lightning's Trainer, where there is no ``trainer``.

        Raises:
            ArgumentError: If ``save_to`` holds anything but an older result.
        """
        if self.save_to is not None:
            check_replaceable(self.save_to)
        read = {"bit_depth": file_format.bit_depth, "planes": file_format.planes}
        arguments = {**self.arguments, **_circumstances(trainer), **read}
        key = cache_key(encoder, self.objective_name, arguments, fingerprint(images))
        folder = cache_folder(self.cache_dir) / key
        with _alone(folder, trainer):
            done = folder.is_dir()
            # Processes that looked at different moments would wait for each other for ever.
            if done if trainer is None else trainer.strategy.broadcast(done):
                record = load_weights(encoder.vit, folder)
                self.summary = record["summary"]
                logger.info("Pretraining is loaded from %s, the result of the same run. %s", folder, self.summary)
            else:
                with isolate_rng():
                    torch.manual_seed(self.seed)
                    run = Run(self, encoder, images, labelled, file_format, folder)
                    self.summary = run.train(trainer, trainer_arguments or {})
                logger.info("%s", self.summary)
        if self.save_to is not None and (trainer is None or trainer.is_global_zero):
            copy_folder(folder, Path(self.save_to))
        return folder


def _checkpoint_of(trainer: Trainer) -> Any:
    """Return the checkpoint that a run resumes from; None where it begins anew.

    Lightning sets ``trainer.ckpt_path`` when it has read the checkpoint, which is after all ``setup``. By then the path
    is an argument of the call of ``Trainer._run`` that is running, and nowhere else.
    """
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code is Trainer._run.__code__ and frame.f_locals.get("self") is trainer:
            return frame.f_locals.get("ckpt_path")
        frame = frame.f_back
    return trainer.ckpt_path


def _circumstances(trainer: Trainer | None) -> dict[str, Any]:
    """Return what of the trainer the result depends on, where it is not one process in full precision."""
    if trainer is None:
        return {}
    found = {"processes": trainer.world_size, "precision": str(trainer.precision)}
    return {name: value for name, value in found.items() if value not in {1, "32-true"}}


@contextmanager
def _alone(folder: Path, trainer: Trainer | None) -> Iterator[None]:
    """Hold the folder's lock while the block runs; a second run of the same waits, and then loads the first one's.

    Only the first process of a distributed run holds it.
    """
    if trainer is not None and not trainer.is_global_zero:
        yield
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.warning("The same pretraining runs in another process; waiting for its result, %s.", folder)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
