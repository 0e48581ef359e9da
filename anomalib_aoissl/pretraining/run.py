# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""One run of pretraining: the nested trainer on the outer one's devices, its checkpoint, and the artefact."""

from __future__ import annotations

import copy
import logging
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from anomalib_aoissl.data.describing.file_format import FileFormat
from anomalib_aoissl.data.files import names_full_disk
from anomalib_aoissl.encoder.vit import PatchEncoder, create_vit
from anomalib_aoissl.plugin.arguments import ArgumentError

from .nesting import nested_arguments
from .training.artefact import save_encoder
from .training.augmentation import CropKind, Crops
from .training.images import CropDataset, ImageFiles
from .training.initialization import whiten_patch_embedding
from .training.module import PretrainingModule, crop_loader
from .training.resuming import LAST, KeepsPrevious, newest_whole
from .watching.watcher import Labelled, Watcher

if TYPE_CHECKING:
    from .callback import PretrainingCallback

logger = logging.getLogger(__name__)

_CLIP = 1.0  # largest norm of the gradient
_RANK_IMAGES = 8  # pictures whose embeddings' rank is watched
_PREPARED_IMAGES = 64  # pictures that an objective may look at before training


class Run:
    """Trains a copy of the encoder and hands its best weights over.

    Args:
        settings: The callback with its arguments.
        encoder: The encoder; its weights change when training has ended, not before.
        images: Files of each picture.
        labelled: Images of the probe.
        file_format: How the files of a picture are read.
        folder: Where the artefact is written.
        native: Whether crops are cut from pictures at their own resolution, else at the encoder's image size.
    """

    def __init__(
        self,
        settings: PretrainingCallback,
        encoder: PatchEncoder,
        images: Sequence[ImageFiles],
        labelled: Labelled | None,
        file_format: FileFormat,
        folder: Path,
        *,
        native: bool = False,
    ) -> None:
        self.settings, self.encoder, self.images, self.folder = settings, encoder, list(images), folder
        self.partial = folder.with_name(f"{folder.name}.partial")
        self.file_format = file_format
        self.size = None if native else encoder.image_size
        vit = copy.deepcopy(encoder.vit).requires_grad_(True).train()
        pictures = encoder.normalised(self._pictures(_PREPARED_IMAGES).float() / 255)
        untrained = is_untrained(encoder)
        self.learning_rate = settings.learning_rate(untrained=untrained)
        if settings.start == "whitened" or (settings.start == "auto" and untrained):
            whiten_patch_embedding(vit, pictures)
        self.objective = settings.build_objective(vit)
        self._check_crops()
        self.objective.prepare(pictures)
        self.watcher = Watcher(
            encoder,
            self._pictures(_RANK_IMAGES),
            labelled,
            every=settings.probe.every,
            picture_folder=self.partial / "pictures",
            seed=settings.seed,
        )

    def _check_crops(self) -> None:
        """Validate that the encoder's patches fill the crops.

        Raises:
            ArgumentError: If a side of a crop is no multiple of the patch's.
        """
        rows, columns = self.encoder.patch_size
        for name, kind in self.objective.crop_kinds().items():
            if kind.size[0] % rows or kind.size[1] % columns:
                field = "size" if name == "crop" else f"{name}_size"
                msg = f"crops.{field}={kind.size} must be multiples of the encoder's patch, {rows}x{columns} px."
                raise ArgumentError(msg)

    def train(self, outer: Trainer | None, arguments: Mapping[str, Any]) -> str:
        """Train or resume, write the artefact, put the best weights into the encoder, and return one paragraph."""
        trainer = self._trainer(outer, arguments)
        module = self._module()
        loader = self._loader(trainer)
        resume, epochs = newest_whole(self.partial, module)
        # Lightning says the epoch when worker processes have asked for its order already
        loader.sampler.set_epoch(epochs)  # type: ignore[attr-defined]
        if self.settings.max_steps != -1:  # so that a run which has made its steps makes no more when it resumes
            steps = math.ceil(len(loader) / trainer.accumulate_grad_batches)  # of an epoch
            most = math.ceil(self.settings.max_steps / steps)
            trainer.fit_loop.max_epochs = min(self.settings.max_epochs, most)
        try:
            with names_full_disk(self.partial):
                trainer.fit(module, loader, ckpt_path=resume, weights_only=True)
        except SystemExit:  # how Lightning ends after Ctrl+C
            logger.error(  # noqa: TRY400 - the way here is of no use to anybody
                "Pretraining was interrupted at step %d. The same command goes on from the last measure.",
                trainer.global_step,
            )
            raise
        return self._finish(trainer)

    def _finish(self, trainer: Trainer) -> str:
        """Write the artefact on the first rank, and load the best weights on every rank."""
        seconds = self.watcher.seconds
        self.encoder.vit.load_state_dict(trainer.strategy.broadcast(self.watcher.best))
        text = self.summary(seconds)
        if trainer.is_global_zero:
            save_encoder(self.encoder, self.folder, self._record(text, seconds))
            pictures = self.partial / "pictures"
            if pictures.is_dir():
                shutil.copytree(pictures, self.folder / "pictures", dirs_exist_ok=True)
            shutil.rmtree(self.partial, ignore_errors=True)
        trainer.strategy.barrier("pretraining")
        return text

    def summary(self, seconds: float) -> str:
        """Return one paragraph: what was learnt, whether it beats the starting weights, which encoder is kept."""
        history = self.watcher.history
        first, last, kept = history[0], history[-1], history[self.watcher.best_index]
        losses = [record["loss"] for record in history if record["loss"] is not None]
        loss = f"the loss went from {losses[0]:.4f} to {losses[-1]:.4f}" if losses else "no loss was recorded"
        text = (
            f"Pretraining ({self.settings.objective_name}, {len(self.images)} images, {last['step']} steps, "
            f"{seconds:.0f} s): {loss}; the embeddings' effective rank from {first['rank']:.1f} to {last['rank']:.1f}."
        )
        if first["mean_iou"] is None:
            return f"{text} Without labelled images nothing was probed, and the last encoder is kept."
        probe = f"Probe mean IoU: {first['mean_iou']:.3f} before, {last['mean_iou']:.3f} at the end"
        if self.watcher.best_index == 0:
            return (
                f"{text} {probe}. Nothing beat the starting weights, so they are kept as they were. Train longer, on "
                f"more varied pictures, with another optimizer.learning_rate (here {self.learning_rate:g}), or "
                "leave pretraining out."
            )
        return f"{text} {probe}; the encoder of step {kept['step']} is kept, the best with {kept['mean_iou']:.3f}."

    def _record(self, text: str, seconds: float) -> dict[str, Any]:
        """Return the content of pretraining.json."""
        return {
            "objective": self.settings.objective_name,
            "arguments": self.settings.arguments,
            "learning_rate": self.learning_rate,
            "images": {"count": len(self.images), "names": sorted(files[0].name for files in self.images)},
            "measures": self.watcher.history,
            "kept": self.watcher.best_index,
            "summary": text,
            "seconds": round(seconds, 1),
            "torch": torch.__version__,
        }

    def _module(self) -> PretrainingModule:
        """Return the Lightning module of the objective."""
        s, encoder = self.settings, self.encoder
        return PretrainingModule(
            self.objective,
            learning_rate=self.learning_rate,
            warmup=s.optimizer.warmup,
            max_steps=s.max_steps,
            light=s.light,
            mean=encoder.mean,
            std=encoder.std,
            seed=s.seed,
        )

    def _trainer(self, outer: Trainer | None, arguments: Mapping[str, Any]) -> Trainer:
        """Return the nested trainer."""
        s = self.settings
        checkpoint = ModelCheckpoint(
            self.partial,
            Path(LAST).stem,
            every_n_epochs=s.probe.every,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )
        own: dict[str, Any] = {
            "max_epochs": s.max_epochs,
            "gradient_clip_val": _CLIP,
            "callbacks": [self.watcher, KeepsPrevious(self.partial), checkpoint],
            "enable_model_summary": False,
            "use_distributed_sampler": False,
            "default_root_dir": self.partial,
            "log_every_n_steps": 1,
        }
        given = {"logger": False, **arguments} if outer is None else nested_arguments(outer)
        return Trainer(**{**given, **own})

    def _loader(self, trainer: Trainer) -> torch.utils.data.DataLoader[Any]:
        """Return this rank's loader of crops."""
        s = self.settings
        dataset = CropDataset(
            self.images,
            size=self.size,
            channels=self.encoder.in_channels,
            crops=Crops(self.objective.crop_kinds()),
            crops_per_image=s.crops.per_image,
            seed=s.seed,
            file_format=self.file_format,
            memory_mb=s.loading.memory_mb,
        )
        return crop_loader(
            dataset,
            batch_size=s.batch_size,
            num_workers=s.loading.num_workers,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
            pin_memory=trainer.strategy.root_device.type == "cuda",
        )

    def _pictures(self, count: int) -> torch.Tensor:
        """Return some pictures, spread over the list, ``[N, C, H, W]`` uint8; parts of pictures of their own size."""
        step = max(len(self.images) // count, 1)
        dataset = CropDataset(
            self.images[::step][:count],
            size=self.size,
            channels=self.encoder.in_channels,
            crops=Crops({"whole": CropKind(1, self.encoder.image_size)}, structure=1.0, symmetries=False),
            seed=self.settings.seed,
            file_format=self.file_format,
            memory_mb=0,
        )
        return torch.cat([dataset[index]["whole"] for index in range(len(dataset))])


def is_untrained(encoder: PatchEncoder) -> bool:
    """Return whether the encoder still has the random weights that it was made with, which are always the same."""
    size, channels = encoder.image_size, encoder.in_channels
    fresh = create_vit(encoder.describe(), image_size=size, in_channels=channels, pretrained=False)
    given = encoder.vit.state_dict()
    return all(torch.equal(value, given[name].cpu()) for name, value in fresh.state_dict().items())
