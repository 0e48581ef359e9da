# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Mean IoU, IoU of each class and pixel accuracy, as an anomalib evaluator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from anomalib.metrics import Evaluator
from lightning.pytorch import LightningModule, Trainer
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex
from torchmetrics.wrappers import ClasswiseWrapper

from .data.indices import IGNORE_INDEX


def segmentation_metrics(class_names: Sequence[str], prefix: str = "") -> MetricCollection:
    """Return ``mean_iou``, ``iou_<class>`` and ``pixel_accuracy``, all pooled over the pixels of the split.

    Pixels of ground truth 255 are not counted. A class's IoU is NaN where it is neither in the ground truth nor
    predicted; the mean leaves such a class out.

    Args:
        class_names: Names of the classes in the order of their indices.
        prefix: Text before each name.
    """
    count = len(class_names)
    each = MulticlassJaccardIndex(count, average=None, ignore_index=IGNORE_INDEX, zero_division=float("nan"))
    return MetricCollection(
        {
            "mean_iou": MulticlassJaccardIndex(count, average="macro", ignore_index=IGNORE_INDEX),
            "iou": ClasswiseWrapper(each, labels=list(class_names), prefix="iou_"),
            "pixel_accuracy": MulticlassAccuracy(count, average="micro", ignore_index=IGNORE_INDEX),
        },
        prefix=prefix,
        compute_groups=False,  # the wrapper's state is not its own, so torchmetrics would group it wrongly
    )


class SegmentationEvaluator(Evaluator):
    """Anomalib's evaluator for class-index masks; its metrics are made when the classes are known."""

    def __init__(self) -> None:
        super().__init__()
        self.class_names: tuple[str, ...] = ()
        self.val_collection: MetricCollection | None = None
        self.test_collection: MetricCollection | None = None

    def set_class_names(self, class_names: Sequence[str]) -> None:
        """Make the metrics for these classes; nothing changes where they are the same as before."""
        if tuple(class_names) == self.class_names:
            return
        self.class_names = tuple(class_names)
        self.val_collection = segmentation_metrics(class_names, prefix="val_")
        self.test_collection = segmentation_metrics(class_names)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Count the batch's pixels."""
        del trainer, outputs
        _update(self.val_collection, batch, pl_module)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Count the batch's pixels."""
        del trainer, outputs
        _update(self.test_collection, batch, pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the validation metrics."""
        del trainer
        _log(self.val_collection, pl_module)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the test metrics."""
        del trainer
        _log(self.test_collection, pl_module)


def _update(collection: MetricCollection | None, batch: Any, pl_module: LightningModule) -> None:
    """Count the pixels of a batch that has ground truth."""
    if collection is None or batch.gt_mask is None:
        return
    collection.to(pl_module.device)
    # Masks are tv_tensors; as plain tensors they do not carry their class into the metrics' states.
    collection.update(batch.pred_mask.as_subclass(torch.Tensor), batch.gt_mask.as_subclass(torch.Tensor))


def _log(collection: MetricCollection | None, pl_module: LightningModule) -> None:
    """Log the metrics of a split that had ground truth, and start anew."""
    if collection is None or not any(metric.update_called for metric in collection.values()):
        return
    pl_module.log_dict(collection.compute(), sync_dist=False)
    collection.reset()
