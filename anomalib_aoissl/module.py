# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What the plugin's models share: class names and checkpoints, demonstration data, prediction, export.

A mixin, since anomalib finds only direct children of its module: ``class Model(SegmentationModuleMixin,
AnomalibModule)``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from anomalib import LearningType
from anomalib.data import ImageBatch
from lightning.pytorch import Callback
from torch import nn
from torch.utils.data import DataLoader

from .checkpoint_files import CheckedCheckpointIO, check_content, check_file, source
from .data.file_format import FileFormat
from .data.items import SegmentationBatch
from .encoder import PatchEncoder
from .evaluation import SegmentationEvaluator
from .exporting import ExportingMixin
from .preprocessing import SegmentationPreProcessor
from .pretraining import make_pretraining
from .visualization import SegmentationVisualizer

if TYPE_CHECKING:
    from anomalib.models.components import AnomalibModule as _Base
else:
    _Base = object  # mixed in before AnomalibModule, whose direct child the model must be

logger = logging.getLogger(__name__)

CHECKPOINT_KEY = "anomalib_aoissl"
"""Key of the class names and the file format in a checkpoint."""


class SegmentationModuleMixin(ExportingMixin, _Base):
    """Class names, checkpoint, data and export of a model whose ``model`` has a `PatchEncoder` as ``encoder``.

    A model defines `build_model` and lists in ``ENCODER_ARGUMENTS`` the arguments that its weights depend on.
    """

    ENCODER_ARGUMENTS: ClassVar[tuple[str, ...]] = ("encoder", "image_size", "in_channels", "blocks", "normalize")
    DEFAULTS: ClassVar[dict[str, Any]] = {}
    ONCE: ClassVar[dict[str, Any]] = {"pretrained": False, "pretraining": None}
    """Arguments that a checkpoint holds the result of, with the value that it saves so that they do not act again."""
    BEFORE: ClassVar[dict[str, Any]] = {}
    """What checkpoints that do not know an argument were made with."""

    model: Any
    class_names: tuple[str, ...] = ()
    file_format: FileFormat = FileFormat()
    _demonstration: Any = None
    _pretraining: Callback | None = None

    # --- parts -------------------------------------------------------------------------------------------------------

    def build_parts(self, pre_processor: nn.Module | bool) -> None:
        """Make pretraining, the model, and, where it is asked for by true, the pre-processor; ends ``__init__``.

        Raises:
            ValueError: If an argument of pretraining, encoder or model is out of range.
        """
        self.build_pretraining()
        self.build_model()
        if pre_processor is True:  # made here, since its size and constants are the encoder's
            self.pre_processor = self.build_pre_processor()

    def build_model(self) -> None:
        """Make ``self.model`` from ``self.hparams``."""
        raise NotImplementedError

    def build_encoder(self) -> PatchEncoder:
        """Return the encoder that ``self.hparams`` describe.

        Raises:
            ValueError: If no such encoder can be made, or the image size does not fit it.
        """
        h: Any = self.hparams
        return PatchEncoder(
            h.encoder,
            image_size=tuple(h.image_size),
            in_channels=h.in_channels,
            pretrained=h.pretrained,
            blocks=h.get("blocks", 1),
            normalize=h.normalize,
        )

    def build_pre_processor(self) -> SegmentationPreProcessor:
        """Return the pre-processor with the encoder's size and constants."""
        encoder = self.model.encoder
        return SegmentationPreProcessor(encoder.image_size, encoder.mean, encoder.std)

    def build_pretraining(self) -> None:
        """Make the callback that ``self.hparams`` ask for; it is the same as given by ``--trainer.callbacks``.

        Raises:
            ValueError: If there is no such objective, or it does not take an argument.
        """
        self._pretraining = make_pretraining(self.hparams["pretraining"])

    def configure_callbacks(self) -> list[Callback]:
        """Return the model's components that are callbacks, pretraining first."""
        components = super().configure_callbacks()
        parts = [components] if isinstance(components, Callback) else list(components)
        return parts if self._pretraining is None else [self._pretraining, *parts]

    @staticmethod
    def configure_post_processor() -> None:
        """Return no post-processor: classes come out of the model, and novelty is a distance that stays as it is."""
        return

    @staticmethod
    def configure_evaluator() -> SegmentationEvaluator:
        """Return the evaluator: mean IoU, IoU of each class, pixel accuracy."""
        return SegmentationEvaluator()

    @classmethod
    def configure_visualizer(cls) -> SegmentationVisualizer:
        """Return the visualizer: image, ground truth, prediction and novelty side by side, and masks as files."""
        return SegmentationVisualizer()

    @property
    def learning_type(self) -> LearningType:
        """ONE_CLASS, the only type for which anomalib's engine runs ``fit``; it has no supervised or few-shot fit."""
        return LearningType.ONE_CLASS

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) of the model's input after pre-processing, px."""
        return plain_size(self.hparams["image_size"])

    # --- class names -------------------------------------------------------------------------------------------------

    def set_dataset(self, class_names: Sequence[str], file_format: FileFormat) -> None:
        """Take the names of the classes and the way files are read to all parts that need them.

        Raises:
            ValueError: If the model already knows other classes.
        """
        if self.class_names and tuple(class_names) != self.class_names:
            msg = (
                f"The model knows the classes {list(self.class_names)}, the data has {list(class_names)}. They must be "
                "the same in the same order; train a model anew for other classes."
            )
            raise ValueError(msg)
        self.class_names, self.file_format = tuple(class_names), file_format
        if isinstance(self.evaluator, SegmentationEvaluator):
            self.evaluator.set_class_names(self.class_names)
        if isinstance(self.visualizer, SegmentationVisualizer):
            self.visualizer.set_dataset(self.class_names, file_format)

    def _adopt_dataset(self, loader: Any) -> None:
        """Take the class names of the data that a loader reads.

        Raises:
            TypeError: If the dataset has no class names, hence no class-index masks.
        """
        dataset = getattr(loader[0] if isinstance(loader, list | tuple) and loader else loader, "dataset", None)
        names = getattr(dataset, "class_names", None)
        if names is None:
            msg = (
                f"{type(self).__name__} needs images with class-index masks, got {type(dataset).__name__}. Use "
                "--data SegmentationFolder --data.root <folder> for your own images, or --data WireBond for the "
                "demonstration set."
            )
            raise TypeError(msg)
        self.set_dataset(names, getattr(dataset, "file_format", FileFormat()))

    def on_train_start(self) -> None:
        """Take the class names of the training data."""
        self._adopt_dataset(self.trainer.train_dataloader)

    def on_validation_start(self) -> None:
        """Take the class names of the validation data, then go on as the model does."""
        if self.trainer.val_dataloaders:
            self._adopt_dataset(self.trainer.val_dataloaders)
        parent = getattr(super(), "on_validation_start", None)
        if parent is not None:
            parent()

    def on_test_start(self) -> None:
        """Take the class names of the test data, or refuse it where its classes are others."""
        self._adopt_dataset(self.trainer.test_dataloaders)

    def on_predict_start(self) -> None:
        """Hand the class names of the checkpoint to the visualizer."""
        self.set_dataset(self.class_names, self.file_format)

    # --- steps -------------------------------------------------------------------------------------------------------

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        """Return the batch with the model's predictions; pictures that anomalib read are read again as training did.

        Anomalib's reader for prediction gives 8-bit RGB of single files: 16-bit pictures would be clipped, and the
        illuminations of one item torn apart.
        """
        del batch_idx, dataloader_idx
        if isinstance(batch, ImageBatch) and not isinstance(batch, SegmentationBatch):
            batch = self._read_again(batch)
        return batch.update(**self.predictions(batch.image))

    def _read_again(self, batch: ImageBatch) -> SegmentationBatch:
        """Return a batch of anomalib's own reader with the pictures that the model was trained to see."""
        if batch.image_path is None:
            return SegmentationBatch(image=batch.image)
        images = torch.stack([torch.from_numpy(self.file_format.read(path)) for path in batch.image_path])
        images = images.to(self.device)
        first = [str(self.file_format.files(path)[0]) for path in batch.image_path]
        return SegmentationBatch(image=self.pre_processor(images) if self.pre_processor else images, image_path=first)

    def validation_step(self, batch: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the batch with the model's predictions."""
        del args, kwargs
        return batch.update(**self.predictions(batch.image))

    def test_step(self, batch: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the batch with the model's predictions."""
        del args, kwargs
        return batch.update(**self.predictions(batch.image))

    def predictions(self, images: torch.Tensor) -> dict[str, torch.Tensor | None]:
        """Return the fields of a batch that the model gives for normalised images ``[B, C, H, W]``."""
        outputs: dict[str, torch.Tensor | None] = self.model(images)._asdict()
        return outputs

    # --- data where none is given ------------------------------------------------------------------------------------

    def _demonstration_data(self) -> Any:
        """Return the demonstration set, drawn where it is not on disk yet."""
        if self._demonstration is None:
            from .data.wire_bond import WireBond

            logger.warning("No data given (--data): using the demonstration set WireBond.")
            self._demonstration = WireBond()
            self._demonstration.prepare_data()
            self._demonstration.trainer = self.trainer
            self._demonstration.setup()
        return self._demonstration

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the demonstration set's training images; called where no data is given."""
        return self._demonstration_data().train_dataloader()

    def val_dataloader(self) -> Any:
        """Return the demonstration set's validation images; called where no data is given."""
        return self._demonstration_data().val_dataloader()

    def test_dataloader(self) -> DataLoader[Any]:
        """Return the demonstration set's test images; called where no data is given."""
        return self._demonstration_data().test_dataloader()

    # --- checkpoint --------------------------------------------------------------------------------------------------

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the model of a checkpoint, as anomalib loads it, whose file is whole.

        Raises:
            CheckpointError: If the file was cut or changed.
        """
        if not isinstance(checkpoint_path, str | Path):
            return super().load_from_checkpoint(checkpoint_path, *args, **kwargs)
        check_file(checkpoint_path)
        token = source.set(str(checkpoint_path))
        try:
            return super().load_from_checkpoint(checkpoint_path, *args, **kwargs)
        finally:
            source.reset(token)

    def setup(self, stage: str) -> None:
        """Have the trainer check the checkpoints that it loads."""
        super().setup(stage)
        strategy: Any = self.trainer.strategy
        if not isinstance(strategy.checkpoint_io, CheckedCheckpointIO):
            strategy.checkpoint_io = CheckedCheckpointIO(strategy.checkpoint_io)

    @property
    def checkpoint_source(self) -> str:
        """Path of the checkpoint that is being loaded, where it is known; for messages."""
        path = None if self._trainer is None else self._trainer.ckpt_path
        return source.get() if path is None else str(path)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save what the model needs to be built again: the encoder's description, class names, file format."""
        super().on_save_checkpoint(checkpoint)
        parameters = checkpoint.setdefault("hyper_parameters", {})
        parameters.update(self.ONCE, encoder=self.model.encoder.describe())
        checkpoint[CHECKPOINT_KEY] = {
            "class_names": list(self.class_names),
            "file_format": self.file_format.to_dict(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Build the model that the checkpoint was saved from, whatever the arguments' defaults say.

        Raises:
            ValueError: If it is of another package's model, holds weights that are not finite, or an argument that the
                weights depend on was set to another value than the checkpoint's.
        """
        check_content(checkpoint, self.checkpoint_source)
        self._adopt_arguments({**self.BEFORE, **checkpoint.get("hyper_parameters", {})})
        saved = checkpoint.get(CHECKPOINT_KEY, {})
        if saved.get("class_names"):
            self.set_dataset(saved["class_names"], FileFormat.from_dict(saved.get("file_format", {})))
        super().on_load_checkpoint(checkpoint)

    def _adopt_arguments(self, saved: Mapping[str, Any]) -> None:
        """Take the checkpoint's arguments where ours are the defaults; rebuild where the encoder differs."""
        own = {**self.hparams, "encoder": self.model.encoder.describe()}
        changed = {key: value for key, value in saved.items() if key in own and _plain(own[key]) != _plain(value)}
        changed = {key: value for key, value in changed.items() if key not in self.ONCE}
        for key in [key for key in changed if _plain(self.hparams[key]) != _plain(self.DEFAULTS.get(key))]:
            if key in self.ENCODER_ARGUMENTS:
                msg = (
                    f"The checkpoint was saved with {key}={changed[key]}, but --model.{key} says {self.hparams[key]}. "
                    f"Leave out --model.{key}: the checkpoint brings it along."
                )
                raise ValueError(msg)
            del changed[key]  # set on purpose, and the weights do not depend on it
        if changed:
            self.hparams.update({**changed, "pretrained": False})
            self.build_model()
            if isinstance(self.pre_processor, SegmentationPreProcessor):
                self.pre_processor.load_checkpoint_config(self.build_pre_processor().config)
            datamodule: Any = getattr(self._trainer, "datamodule", None)
            if datamodule is not None:
                datamodule.setup()  # anomalib resizes in the dataset too, to the size known until now


def plain_size(image_size: int | Sequence[int]) -> tuple[int, int]:
    """Return (height, width) px of an integer or a pair, as plain integers that a checkpoint may hold.

    Raises:
        ValueError: If it is neither, or not positive.
    """
    sizes = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if len(sizes) != 2 or any(int(size) <= 0 for size in sizes):
        msg = f"image_size={image_size} must be one size or (height, width), in px and greater than 0."
        raise ValueError(msg)
    return int(sizes[0]), int(sizes[1])


def plain_encoder(encoder: str | Mapping[str, Any]) -> str | dict[str, Any]:
    """Return the encoder's name or description as plain data that a checkpoint may hold."""
    return encoder if isinstance(encoder, str) else _plain(encoder)


def plain_pretraining(pretraining: str | Mapping[str, Any] | None) -> str | dict[str, Any] | None:
    """Return the objective's name or description as plain data that a checkpoint may hold."""
    return _plain(pretraining)


def _plain(value: Any) -> Any:
    """Return configuration objects and tuples as dictionaries and lists, to compare and to save."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value
