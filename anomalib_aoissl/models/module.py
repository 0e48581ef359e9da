# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What the plugin's models share: their parts and class names, and mixed in the rest.

A mixin, since anomalib finds only direct children of its module: ``class Model(SegmentationModuleMixin,
AnomalibModule)``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from anomalib import LearningType
from lightning.pytorch import Callback
from torch import nn

from anomalib_aoissl.data.describing.file_format import FileFormat
from anomalib_aoissl.data.quality.picture_quality import LabelledQuality
from anomalib_aoissl.deployment.tiles.light import FIXED_LIGHT
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

from .argument_rules import ViewOptions
from .checkpoint_mixin import CheckpointMixin
from .demonstration_mixin import DemonstrationMixin
from .export.exporting_mixin import ExportingMixin
from .pictures.predicting import serve_data_path, serve_written_arguments
from .pictures.predicting_mixin import PredictingMixin
from .pictures.quality import quality_of_training
from .pictures.thin_parts import warn_of_thin_parts
from .preprocessing import LIGHT, SegmentationPreProcessor
from .tiles import plain_sizes

if TYPE_CHECKING:
    from anomalib.data import AnomalibDataModule

    from anomalib_aoissl.pretraining.callback import PretrainingCallback

    from .protocols import SegmentationModule as _Base
else:
    _Base = object  # mixed in before AnomalibModule, whose direct child the model must be

logger = logging.getLogger(__name__)


class SegmentationModuleMixin(CheckpointMixin, ExportingMixin, PredictingMixin, DemonstrationMixin, _Base):
    """Class names, checkpoint, data and export of a model whose ``model`` has an `Encoder` as ``encoder``.

    A model defines `build_model` and lists in ``ENCODER_ARGUMENTS`` the arguments that its weights depend on.
    """

    class_names: tuple[str, ...] = ()
    file_format: FileFormat = FileFormat()
    labelled_quality: LabelledQuality | None = None
    """What the labelled pictures are like; None where it is not known."""
    replaced_defaults: Mapping[str, Any] = MappingProxyType({})
    """Defaults that do not go with what the user wrote, by names such as "vote.k", with what stands in their place."""
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
        h = self.hparams
        options = EncoderOptions(**h["encoder"])
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
                in_channels=h["in_channels"],
                pretrained=options.pretrained,
            )
        except ValueError as error:
            if self.tiling is None or not str(error).startswith("image_size="):
                raise
            raise ArgumentError(str(error).replace("image_size", "tiling.size", 1)) from error

    def build_pre_processor(self) -> SegmentationPreProcessor:
        """Return the pre-processor with the encoder's size and constants."""
        encoder, tiled = self.model.encoder, self.tiling is not None
        light = FIXED_LIGHT if self.view_options.light == FIXED_LIGHT else LIGHT
        return SegmentationPreProcessor(encoder.image_size, encoder.mean, encoder.std, tiled=tiled, light=light)

    @property
    def view_options(self) -> ViewOptions:
        """What may differ between pictures of the same parts."""
        return ViewOptions(**self.hparams["views"])

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

    def _adopt_dataset(self, loader: object, *, learns: bool = True) -> None:
        """Take the class names of the data that a loader reads, and how its files are read.

        A model that has learnt, and learns nothing from this data, keeps how its own files are read: that is what it
        is exported with.

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
        own = None if learns or not self.class_names else self.file_format
        self.set_dataset(names, file_format)
        if own is not None:
            self.file_format = own
            if own.bit_depth != file_format.bit_depth:
                logger.warning(
                    "The model was trained with bit_depth=%s, this data is read with bit_depth=%s. Give "
                    "--data.bit_depth if its files hold as many bits as those of training.",
                    own.bit_depth,
                    file_format.bit_depth,
                )

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
        """Take class names and quality of the training data; warn where masks are too fine for the model's size."""
        loader = self.trainer.train_dataloader
        self._adopt_dataset(loader)
        dataset, size = getattr(loader, "dataset", None), self.input_size if self.tiling is None else None
        self.labelled_quality = quality_of_training(dataset, size)
        if size is not None and self.trainer.is_global_zero:
            warn_of_thin_parts(dataset, size, self.class_names)

    def on_validation_start(self) -> None:
        """Take the class names of the validation data, then go on as the model does."""
        if self.trainer.val_dataloaders:
            self._adopt_dataset(self.trainer.val_dataloaders, learns=False)
        super().on_validation_start()

    def on_test_start(self) -> None:
        """Take the class names of the test data; raise where its classes are others."""
        self._adopt_dataset(self.trainer.test_dataloaders, learns=False)
        if isinstance(self.visualizer, SegmentationVisualizer):  # a test asks for it in pictures alone
            self.take_own_novelty()

    # --- batches -----------------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Prepare the data for tiles, where the model has them."""
        super().setup(stage)
        self.prepare_batches()

    def prepare_batches(self) -> None:
        """Have pictures that are cut into tiles come one by one: in a batch they are resized to one size."""
        datamodule: AnomalibDataModule | None = getattr(self._trainer, "datamodule", None)
        if self.tiling is not None and datamodule is not None:
            datamodule.eval_batch_size = 1
            if self.HAS_BANK:  # the segmenter reads its examples by itself
                datamodule.train_batch_size = 1


serve_data_path(SegmentationModuleMixin)
serve_written_arguments(SegmentationModuleMixin)
