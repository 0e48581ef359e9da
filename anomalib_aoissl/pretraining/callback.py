# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The callback that pretrains a model's encoder before the model's own training: when, on what, and what is kept."""

from __future__ import annotations

import inspect
import logging
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
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
from anomalib_aoissl.plugin.arguments import ArgumentError, Rule, validate
from anomalib_aoissl.plugin.options import OptionsRule, plain_data
from anomalib_aoissl.pretraining.run import Run
from anomalib_aoissl.pretraining.training.artefact import (
    cache_folder,
    cache_key,
    check_replaceable,
    copy_folder,
    load_weights,
)
from anomalib_aoissl.pretraining.training.augmentation import Light
from anomalib_aoissl.pretraining.training.images import ImageFiles, fingerprint, pretraining_images
from anomalib_aoissl.pretraining.training.objective import Objective
from anomalib_aoissl.pretraining.watching.labelled import labelled_fingerprint, probe_images
from anomalib_aoissl.pretraining.watching.watcher import Labelled

from .argument_rules import RULES, Start
from .options import CropOptions, LoadingOptions, OptimizerOptions, ProbeOptions

__all__ = ["PretrainingCallback", "Start"]

_TRAINED_RATE = 1e-4
_WITHOUT_EFFECT = {"loading", "save_to", "cache_dir"}  # on the result
_TRAINER_WITHOUT_EFFECT = {"accelerator", "logger", "enable_progress_bar"}

logger = logging.getLogger(__name__)


@dataclass(eq=False, repr=False)
class PretrainingCallback(Callback):
    """Pretrains ``pl_module.model.encoder`` in ``setup("fit")``; the model's own fit then goes on.

    The images are those of the datamodule's ``unlabelled_dir``, else its training images; masks are read for the probe
    alone. The same run again (encoder, weights, arguments, images, labels) loads the cached result. Nothing happens
    when the model's run resumes from a checkpoint. Where options are expected, a mapping of some of their fields will
    do.

    Args:
        max_epochs: Passes over the images.
        max_steps: Optimiser steps after which to stop before that; -1 for no limit.
        batch_size: Samples of a batch on each device.
        start: Patch embedding and positions that training starts from: "given", "whitened" (principal components of
            the pictures' patches, and sine-cosine positions), or "auto": whitened for an encoder with random weights.
        crops: How crops are cut from the pictures.
        light: Random light of the crops, see `Light`.
        optimizer: Learning rate and warm-up, see `OptimizerOptions`.
        probe: When and on what the encoder is measured, see `ProbeOptions`.
        loading: Processes and memory for pictures, see `LoadingOptions`.
        seed: Seed of everything random.
        save_to: Folder to copy the artefact to, for ``local-dir:``: a new or empty one, or that of an older artefact,
            which is replaced.
        cache_dir: Where results are kept; default: ANOMALIB_AOISSL_CACHE, else the user's cache folder.

    Raises:
        ValueError: If an argument is not allowed.
    """

    RULES: ClassVar[Mapping[str, Rule]] = RULES
    objective_name: ClassVar[str]
    scratch_rate: ClassVar[float]
    """Learning rate from random weights."""

    max_epochs: int = 200
    max_steps: int = -1
    batch_size: int = 32
    start: Start = "auto"
    crops: CropOptions = CropOptions()
    light: Light = Light()
    optimizer: OptimizerOptions = OptimizerOptions()
    probe: ProbeOptions = ProbeOptions()
    loading: LoadingOptions = LoadingOptions()
    seed: int = 0
    save_to: str | Path | None = None
    cache_dir: str | Path | None = None

    def __post_init__(self) -> None:
        """Validate the arguments, and make options of mappings."""
        super().__init__()
        validate(self.RULES, vars(self))
        for name, rule in self.RULES.items():
            if isinstance(rule, OptionsRule):
                setattr(self, name, rule.made(getattr(self, name)))
        self._done: LightningModule | None = None
        self.summary = ""
        """One paragraph about the last run; empty before it."""

    @abstractmethod
    def build_objective(self, vit: VisionTransformer) -> Objective:
        """Return the objective around a transformer; called with a seeded global generator."""

    def learning_rate(self, *, untrained: bool) -> float:
        """Return the peak of the learning rate, for an encoder with random weights or with trained ones."""
        own = self.scratch_rate if untrained else _TRAINED_RATE
        given = self.optimizer.learning_rate
        return own if given is None else given

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments that the result depends on, plain data."""
        names = [field.name for field in fields(self) if field.name not in _WITHOUT_EFFECT]
        return {name: plain_data(getattr(self, name)) for name in names}

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
        native = getattr(pl_module, "tiling", None) is not None
        self.pretrain(
            encoder,
            pretraining_images(datamodule),
            labelled=self._probe_images(datamodule, encoder.image_size if native else None),
            file_format=getattr(getattr(datamodule, "train_data", None), "file_format", WHOLE_FILES),
            trainer=trainer,
            native=native,
        )
        self._done = pl_module

    def _probe_images(self, datamodule: object, most: tuple[int, int] | None) -> Labelled | None:
        """Return the images of the probe; the same each time, hence the same key, where augmentations are random."""
        with isolate_rng():
            torch.manual_seed(self.seed)
            return probe_images(datamodule, self.probe.images, most)

    def pretrain(
        self,
        encoder: PatchEncoder,
        images: Sequence[ImageFiles],
        *,
        labelled: Labelled | None = None,
        file_format: FileFormat = WHOLE_FILES,
        trainer: Trainer | None = None,
        trainer_arguments: Mapping[str, Any] | None = None,
        native: bool = False,
    ) -> Path:
        """Pretrain an encoder in place, or load the cached result, and return the folder of the artefact.

        Args:
            encoder: The encoder; only its weights change.
            images: Files of each picture.
            labelled: Images of the probe.
            file_format: How the files of a picture are read.
            trainer: Trainer whose devices, precision and strategy are used.
            trainer_arguments: Arguments of Lightning's Trainer, where there is no ``trainer``.
            native: Whether crops are cut from pictures at their own resolution, as for a model with tiles; else
                pictures are first resized to the encoder's image size.

        Raises:
            ArgumentError: If ``save_to`` holds anything but an older result.
        """
        if self.save_to is not None:
            check_replaceable(self.save_to)
        read: dict[str, Any] = {"bit_depth": file_format.bit_depth, "planes": file_format.planes}
        read |= {"native": True} if native else {}
        given = {
            name: value for name, value in (trainer_arguments or {}).items() if name not in _TRAINER_WITHOUT_EFFECT
        }
        read |= {"trainer": given} if given and trainer is None else {}
        arguments = {**self.arguments, **_circumstances(trainer), **read}
        key = cache_key(encoder, self.objective_name, arguments, fingerprint(images), labelled_fingerprint(labelled))
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
                    run = Run(self, encoder, images, labelled, file_format, folder, native=native)
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
