# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Mean IoU, IoU of each class, pixel accuracy, and risk against coverage, as an anomalib evaluator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from anomalib.metrics import Evaluator
from lightning.pytorch import LightningModule, Trainer
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex
from torchmetrics.wrappers import ClasswiseWrapper

from anomalib_aoissl.data.indices import IGNORE_INDEX

from .risk_coverage import Abstained, Curve, RiskCoverage

if TYPE_CHECKING:
    from anomalib_aoissl.data.items import SegmentationBatch


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


class SelectiveMetrics(MetricCollection):
    """``aurc``, and for a model with a threshold ``coverage``, ``selective_risk`` and ``selective_mean_iou``.

    The last three are the share of pixels on which the model answers, the share of wrong ones among them, and the
    mean IoU over them, all pooled over the pixels of the split; ``aurc`` is that of `RiskCoverage`.

    Args:
        num_classes: Number of classes.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__(
            {
                "aurc": RiskCoverage(),
                "coverage": Abstained("coverage"),
                "selective_risk": Abstained("risk"),
                "selective_mean_iou": MulticlassJaccardIndex(num_classes, average="macro", ignore_index=IGNORE_INDEX),
            },
            compute_groups=False,
        )

    def update_from(self, batch: Any) -> None:
        """Count the pixels of a batch with ground truth, by its uncertainty or else its anomaly map."""
        uncertainty = getattr(batch, "uncertainty", None)
        uncertainty = batch.anomaly_map if uncertainty is None else uncertainty
        predicted, truth = (mask.as_subclass(torch.Tensor) for mask in (batch.pred_mask, batch.gt_mask))
        if uncertainty is not None and uncertainty.numel() == truth.numel():
            uncertainty = uncertainty.as_subclass(torch.Tensor).reshape(truth.shape)
            self["aurc"].update(uncertainty, predicted, truth)
        abstained = getattr(batch, "abstained", None)
        if abstained is not None:
            abstained = abstained.as_subclass(torch.Tensor)
            self["coverage"].update(abstained, predicted, truth)
            self["selective_risk"].update(abstained, predicted, truth)
            self["selective_mean_iou"].update(predicted, truth.masked_fill(abstained, IGNORE_INDEX))

    def computed(self) -> dict[str, torch.Tensor]:
        """Return the values of what was counted."""
        return {name: metric.compute() for name, metric in self.items() if metric.update_called}


class SegmentationEvaluator(Evaluator):
    """Anomalib's evaluator for class-index masks; its metrics are made when the classes are known.

    Attributes:
        curve: Risk against coverage of the last test; None before one.
        point: (coverage, risk) at the model's threshold in the last test; None without a threshold.
    """

    def __init__(self) -> None:
        super().__init__()
        self.class_names: tuple[str, ...] = ()
        self.val_collection: MetricCollection | None = None
        self.test_collection: MetricCollection | None = None
        self.selective: SelectiveMetrics | None = None
        self.curve: Curve | None = None
        self.point: tuple[float, float] | None = None

    def set_class_names(self, class_names: Sequence[str]) -> None:
        """Make the metrics for these classes; nothing changes where they are the same as before."""
        if tuple(class_names) == self.class_names:
            return
        self.class_names = tuple(class_names)
        self.val_collection = segmentation_metrics(class_names, prefix="val_")
        self.test_collection = segmentation_metrics(class_names)
        self.selective = SelectiveMetrics(len(self.class_names))

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: SegmentationBatch, *_: object
    ) -> None:
        """Count the batch's pixels."""
        del trainer, outputs
        _update(self.val_collection, batch, pl_module)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: SegmentationBatch, *_: object
    ) -> None:
        """Count the batch's pixels."""
        del trainer, outputs
        _update(self.test_collection, batch, pl_module)
        if self.selective is not None and batch.gt_mask is not None:
            self.selective.to(pl_module.device).update_from(batch)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the validation metrics."""
        del trainer
        _log(self.val_collection, pl_module)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the test metrics, and keep the curve for who draws it."""
        del trainer
        _log(self.test_collection, pl_module)
        values = {} if self.selective is None else self.selective.computed()
        if self.selective is None or not values:
            return
        pl_module.log_dict(values, sync_dist=False)
        self.curve = getattr(self.selective["aurc"], "curve", None)
        coverage, risk = values.get("coverage"), values.get("selective_risk")
        self.point = None if coverage is None or risk is None else (float(coverage), float(risk))
        self.selective.reset()


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
