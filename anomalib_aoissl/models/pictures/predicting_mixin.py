# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What the plugin's models say of pictures: in prediction, validation, test, and as an export.

Mixed into `SegmentationModuleMixin`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch
from anomalib.data import ImageBatch, InferenceBatch

from anomalib_aoissl.data.items import SegmentationBatch
from anomalib_aoissl.visualization.visualizer import SegmentationVisualizer

from ..preprocessing import SegmentationPreProcessor
from ..tiles import tiled_predictions
from .predicting import PredictImages, listed
from .quality import doubted, faults_of, with_novelty

if TYPE_CHECKING:
    from ..protocols import SegmentationModule as _Base
else:
    _Base = object  # mixed in before AnomalibModule, whose direct child the model must be


logger = logging.getLogger(__name__)


class PredictingMixin(_Base):
    """The steps that ask the model, and pictures that are read as training read its own."""

    left_out: int = 0
    """Pictures that the last prediction of a folder could not read."""
    _doubtful: tuple[str, ...] = ()
    _own_novelty: float | None = None

    def on_predict_start(self) -> None:
        """Hand the class names of the checkpoint to the visualizer."""
        self.set_dataset(self.class_names, self.file_format)
        self._doubtful = ()
        self.take_own_novelty()

    def take_own_novelty(self) -> None:
        """Measure what is usual, for faults of pictures and for the colours of their maps."""
        self._own_novelty = self.own_novelty()
        if isinstance(self.visualizer, SegmentationVisualizer):
            self.visualizer.usual = self._own_novelty

    def own_novelty(self) -> float | None:
        """Return the mean novelty of labelled pictures, see `own_novelty`; None for a model without novelty."""
        return None

    def look_at(self, batch: Any) -> None:
        """Note what is wrong with the pictures of a prediction, before they are resized and their light taken out."""
        if isinstance(batch, SegmentationBatch) and batch.image is not None:
            batch.fault = faults_of(batch.image, self.labelled_quality)

    def on_predict_end(self) -> None:
        """Say which pictures differ from the labelled ones, and which could not be read.

        Raises:
            DatasetError: If that is all of them.
        """
        loaders = self.trainer.predict_dataloaders
        loaders = loaders if isinstance(loaders, list | tuple) else [loaders]
        datasets = [getattr(loader, "dataset", None) for loader in loaders]
        if self._doubtful:
            what = "%d pictures are unlike the labelled ones, so that their masks may be wrong:%s"
            logger.warning(what, len(self._doubtful), listed(self._doubtful))
        self.left_out = sum(dataset.report() for dataset in datasets if isinstance(dataset, PredictImages))

    def forward(self, batch: torch.Tensor, *args: object, **kwargs: object) -> InferenceBatch:
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
        fields = self.predictions(batch.image)
        batch.fault = with_novelty(batch.fault, fields["anomaly_map"], self._own_novelty)
        paths = batch.image_path or [""] * len(batch.image)
        faults = batch.fault or [""] * len(paths)
        self._doubtful += tuple(f"{path}: {fault}" for path, fault in zip(paths, faults, strict=True) if fault)
        return batch.update(**doubted(fields, batch.fault))

    def _read_again(self, batch: ImageBatch) -> SegmentationBatch:
        """Return a batch of anomalib's own reader with the pictures that the model was trained to see."""
        if batch.image_path is None:
            return SegmentationBatch(image=batch.image)
        images = [torch.from_numpy(self.file_format.read(path))[None].to(self.device) for path in batch.image_path]
        for image, path in zip(images, batch.image_path, strict=True):
            self._check_planes(image.shape[-3], str(path))
        faults = [fault for image in images for fault in faults_of(image, self.labelled_quality) or [""]]
        images = [self._seen(image) for image in images]  # each by itself: their sizes may differ
        first = [str(self.file_format.files(path)[0]) for path in batch.image_path]
        return SegmentationBatch(image=torch.cat(images), image_path=first, fault=faults)

    def validation_step(self, batch: Any, *args: object, **kwargs: object) -> Any:
        """Return the batch with the model's predictions."""
        del args, kwargs
        return batch.update(**self.predictions(batch.image))

    def test_step(self, batch: Any, *args: object, **kwargs: object) -> Any:
        """Return the batch with the model's predictions."""
        del args, kwargs
        return batch.update(**self.predictions(batch.image))

    def predictions(self, images: torch.Tensor) -> dict[str, torch.Tensor | None]:
        """Return the fields of a batch that the model gives for normalised images ``[B, C, H, W]``."""
        if self.tiling is not None:
            return tiled_predictions(self, images)
        outputs: dict[str, torch.Tensor | None] = self.model(images)._asdict()
        return outputs
