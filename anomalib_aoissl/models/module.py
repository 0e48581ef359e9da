# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What the plugin's models share: class names and checkpoints, demonstration data, prediction, export.

A mixin, since anomalib finds only direct children of its module: ``class Model(SegmentationModuleMixin,
AnomalibModule)``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from anomalib import LearningType
from anomalib.data import ImageBatch, InferenceBatch
from lightning.pytorch import Callback
from torch import nn
from torch.utils.data import DataLoader

from anomalib_aoissl.data.describing.file_format import FileFormat
from anomalib_aoissl.data.items import SegmentationBatch
from anomalib_aoissl.deployment.tiles.tiling import Tiling
from anomalib_aoissl.encoder.architecture import DEFAULT_ENCODER, SHIPPED_TRANSFORMER
from anomalib_aoissl.encoder.base import Encoder
from anomalib_aoissl.encoder.choosing import create_encoder
from anomalib_aoissl.encoder.options import EncoderOptions
from anomalib_aoissl.encoder.vit import PatchEncoder
from anomalib_aoissl.evaluation.evaluator import SegmentationEvaluator
from anomalib_aoissl.plugin.arguments import ArgumentError
from anomalib_aoissl.plugin.options import plain_data
from anomalib_aoissl.plugin.written_arguments import is_written
from anomalib_aoissl.pretraining import make_pretraining
from anomalib_aoissl.visualization.visualizer import SegmentationVisualizer

from .checkpoint_mixin import CheckpointMixin
from .export.exporting_mixin import ExportingMixin
from .predicting import PredictImages, serve_data_path, serve_written_arguments
from .preprocessing import SegmentationPreProcessor
from .thin_parts import warn_of_thin_parts
from .tiles import plain_sizes, tiled_predictions

if TYPE_CHECKING:
    from anomalib.models.components import AnomalibModule as _Base

    from anomalib_aoissl.pretraining.callback import PretrainingCallback
else:
    _Base = object  # mixed in before AnomalibModule, whose direct child the model must be

logger = logging.getLogger(__name__)


class SegmentationModuleMixin(CheckpointMixin, ExportingMixin, _Base):
    """Class names, checkpoint, data and export of a model whose ``model`` has an `Encoder` as ``encoder``.

    A model defines `build_model` and lists in ``ENCODER_ARGUMENTS`` the arguments that its weights depend on.
    """

    model: Any
    class_names: tuple[str, ...] = ()
    file_format: FileFormat = FileFormat()
    left_out: int = 0
    """Pictures that the last prediction of a folder could not read."""
    replaced_defaults: Mapping[str, Any] = MappingProxyType({})
    """Defaults that do not go with what the user wrote, by names such as "vote.k", with what stands in their place."""
    _demonstration: Any = None
    _pretraining: PretrainingCallback | None = None

    # --- parts -------------------------------------------------------------------------------------------------------

    def build_parts(self, pre_processor: nn.Module | bool) -> None:
        """Make pretraining, the model, and, where it is asked for by true, the pre-processor; ends ``__init__``.

        Raises:
            ValueError: If an argument of pretraining, encoder or model is out of range.
        """
        size, tiling = plain_sizes(self.hparams["image_size"], self.hparams.get("tiling"))
        self.hparams.update(image_size=size, tiling=tiling)
        if tiling is not None and pre_processor is not True:
            msg = "tiling needs the model's own pre-processor: leave out pre_processor."
            raise ArgumentError(msg)
        self.build_pretraining()
        options = EncoderOptions(**self.hparams["encoder"])
        is_default = options.architecture == DEFAULT_ENCODER and not is_written(self, "encoder.architecture")
        if self._pretraining is not None and is_default:
            logger.info("Pretraining trains a vision transformer: the encoder is %s.", SHIPPED_TRANSFORMER)
            self.hparams["encoder"] = plain_data(replace(options, architecture=SHIPPED_TRANSFORMER))
            self.replaced_defaults = {"encoder.architecture": SHIPPED_TRANSFORMER}
        self.build_model()
        self._check_pretrainable()
        if pre_processor is True:  # made here, since its size and constants are the encoder's
            self.pre_processor = self.build_pre_processor()

    def _check_pretrainable(self) -> None:
        """Validate that pretraining can train the encoder.

        Raises:
            ArgumentError: If the encoder is no vision transformer.
        """
        if self._pretraining is None or isinstance(self.model.encoder, PatchEncoder):
            return
        encoder, objective = self.hparams["encoder"]["architecture"], self._pretraining.objective_name
        msg = (
            f"encoder.architecture={encoder} cannot be pretrained: pretraining={objective} needs a vision transformer, "
            f"which reads an image as patches. Write encoder.architecture={SHIPPED_TRANSFORMER} "
            f"(--model.encoder.architecture {SHIPPED_TRANSFORMER}), or leave out pretraining."
        )
        raise ArgumentError(msg)

    def build_model(self) -> None:
        """Make ``self.model`` from ``self.hparams``."""
        raise NotImplementedError

    def build_encoder(self) -> Encoder:
        """Return the encoder that ``self.hparams`` describe.

        Raises:
            ValueError: If no such encoder can be made, or the image size does not fit it.
        """
        h: Any = self.hparams
        options = EncoderOptions(**h.encoder)
        if self.tiling is not None and self.tiling.size != self.input_size:
            msg = (
                f"tiling.size={self.tiling.size} must be image_size={self.input_size}, what the model was trained to "
                "see at once. Give that size, or train again."
            )
            raise ArgumentError(msg)
        try:
            return create_encoder(
                options.description,
                image_size=self.input_size,
                in_channels=h.in_channels,
                pretrained=options.pretrained,
                blocks=h.get("blocks", 1),
                normalize=options.normalize,
            )
        except ValueError as error:
            if self.tiling is None or not str(error).startswith("image_size="):
                raise
            raise ArgumentError(str(error).replace("image_size", "tiling.size", 1)) from error

    def build_pre_processor(self) -> SegmentationPreProcessor:
        """Return the pre-processor with the encoder's size and constants."""
        encoder = self.model.encoder
        tiled = self.tiling is not None
        return SegmentationPreProcessor(encoder.image_size, encoder.mean, encoder.std, tiled=tiled)

    def build_pretraining(self) -> None:
        """Make the callback that ``self.hparams`` ask for; it is the same as given by ``--trainer.callbacks``.

        Raises:
            ValueError: If there is no such objective, or it does not take an argument.
        """
        self._pretraining = make_pretraining(self.hparams["pretraining"])

    def keep_encoder(self) -> None:
        """Leave pretraining out, with a warning, where a checkpoint brought an encoder that it cannot train."""
        if self._pretraining is None or isinstance(self.model.encoder, PatchEncoder):
            return
        logger.warning(
            "pretraining=%s is left out: the checkpoint brings its encoder along, %s, which stays as it is.",
            self.hparams["pretraining"],
            self.model.encoder.describe()["architecture"],
        )
        self.hparams["pretraining"] = self._pretraining = None

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
    def tiling(self) -> Tiling | None:
        """Tiles that pictures are cut into; None where they are resized as a whole."""
        return Tiling.of(self.hparams.get("tiling"))

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) of the model's input after pre-processing, px."""
        size = self.hparams["image_size"]
        height, width = size if isinstance(size, Sequence) else (size, size)
        return int(height), int(width)

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
        file_format = getattr(dataset, "file_format", FileFormat())
        if file_format.num_planes is not None:
            of_files = " + ".join(map(str, file_format.planes or ()))
            self._check_planes(file_format.num_planes, f"an item of the data ({of_files} of its files)")
        elif len(dataset):  # type: ignore[arg-type]
            item = dataset[0]  # type: ignore[index]
            self._check_planes(item.image.shape[-3], str(item.image_path))
        self.set_dataset(names, file_format)

    def _check_planes(self, planes: int, what: str) -> None:
        """Validate that the model takes as many planes as a picture has.

        Raises:
            ArgumentError: Naming ``in_channels`` and its right value.
        """
        taken = self.hparams["in_channels"]
        if planes != taken:
            msg = (
                f"in_channels={taken}, but {what} has {planes} planes. Set in_channels={planes} (--model.in_channels "
                f"{planes}; 3 for colour and for one to three lighting channels) and train again, or give pictures of "
                f"{taken} planes."
            )
            raise ArgumentError(msg)

    def on_train_start(self) -> None:
        """Take the class names of the training data, and warn where its masks are too fine for the model's size."""
        loader: Any = self.trainer.train_dataloader
        self._adopt_dataset(loader)
        if self.tiling is None and self.trainer.is_global_zero:
            warn_of_thin_parts(getattr(loader, "dataset", None), self.input_size, self.class_names)

    def on_validation_start(self) -> None:
        """Take the class names of the validation data, then go on as the model does."""
        if self.trainer.val_dataloaders:
            self._adopt_dataset(self.trainer.val_dataloaders)
        parent = getattr(super(), "on_validation_start", None)
        if parent is not None:
            parent()

    def on_test_start(self) -> None:
        """Take the class names of the test data; raise where its classes are others."""
        self._adopt_dataset(self.trainer.test_dataloaders)

    def on_predict_start(self) -> None:
        """Hand the class names of the checkpoint to the visualizer."""
        self.set_dataset(self.class_names, self.file_format)

    def on_predict_end(self) -> None:
        """Say which pictures could not be read.

        Raises:
            DatasetError: If that is all of them.
        """
        loaders = self.trainer.predict_dataloaders
        loaders = loaders if isinstance(loaders, list | tuple) else [loaders]
        datasets = [getattr(loader, "dataset", None) for loader in loaders]
        self.left_out = sum(dataset.report() for dataset in datasets if isinstance(dataset, PredictImages))

    # --- steps -------------------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Prepare the data for tiles, where the model has them."""
        super().setup(stage)
        self.prepare_batches()

    def prepare_batches(self) -> None:
        """Have pictures that are cut into tiles come one by one: in a batch they are resized to one size."""
        datamodule: Any = getattr(self._trainer, "datamodule", None)
        if self.tiling is not None and datamodule is not None:
            datamodule.eval_batch_size = 1
            if self.HAS_BANK:  # the segmenter reads its examples by itself
                datamodule.train_batch_size = 1

    def forward(self, batch: torch.Tensor, *args: Any, **kwargs: Any) -> InferenceBatch:
        """Return what the model says of images ``[B, C, H, W]`` in [0, 1]; an export is the model of one tile."""
        if self.tiling is None or torch.compiler.is_exporting():
            answer: InferenceBatch = super().forward(batch, *args, **kwargs)
            return answer
        fields = tiled_predictions(self, self._seen(batch))
        return InferenceBatch(**{name: fields[name] for name in ("pred_score", "anomaly_map", "pred_mask")})

    def _seen(self, images: torch.Tensor) -> torch.Tensor:
        """Return images ``[B, C, H, W]`` in [0, 1] as the batches of training are."""
        if isinstance(self.pre_processor, SegmentationPreProcessor):
            return self.pre_processor.see_picture(images)
        seen: torch.Tensor = self.pre_processor(images) if self.pre_processor else images
        return seen

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        """Return the batch with the model's predictions; pictures that anomalib read are read again as training did.

        Anomalib's reader for prediction gives 8-bit RGB of single files: 16-bit pictures would be clipped, and the
        lighting channels of one item torn apart.
        """
        del batch_idx, dataloader_idx
        if isinstance(batch, ImageBatch) and not isinstance(batch, SegmentationBatch):
            batch = self._read_again(batch)
        return batch.update(**self.predictions(batch.image))

    def _read_again(self, batch: ImageBatch) -> SegmentationBatch:
        """Return a batch of anomalib's own reader with the pictures that the model was trained to see."""
        if batch.image_path is None:
            return SegmentationBatch(image=batch.image)
        images = [torch.from_numpy(self.file_format.read(path))[None].to(self.device) for path in batch.image_path]
        for image, path in zip(images, batch.image_path, strict=True):
            self._check_planes(image.shape[-3], str(path))
        images = [self._seen(image) for image in images]  # each by itself: their sizes may differ
        first = [str(self.file_format.files(path)[0]) for path in batch.image_path]
        return SegmentationBatch(image=torch.cat(images), image_path=first)

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
        if self.tiling is not None:
            return tiled_predictions(self, images)
        outputs: dict[str, torch.Tensor | None] = self.model(images)._asdict()
        return outputs

    # --- data where none is given ------------------------------------------------------------------------------------

    def _demonstration_data(self) -> Any:
        """Return the demonstration set, drawn where it is not on disk yet."""
        if self._demonstration is None:
            from anomalib_aoissl.wirebond.datamodule import WireBond

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


serve_data_path(SegmentationModuleMixin)
serve_written_arguments(SegmentationModuleMixin)
