# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Metrics pool pixels over the split, leave out ignored pixels, and agree with scikit-learn."""

import math

import pytest
import torch
from sklearn.metrics import accuracy_score, jaccard_score

from anomalib_aoissl.evaluation.evaluator import SegmentationEvaluator, segmentation_metrics

NAMES = ["background", "wire", "ball", "absent"]


def test_values_equal_scikit_learns_over_all_batches() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(0, 3, (6, 16, 16), generator=generator).to(torch.uint8)
    predicted = torch.where(torch.rand(6, 16, 16, generator=generator) < 0.7, truth, (truth + 1) % 3)
    truth[:, :4] = 255
    metrics = segmentation_metrics(NAMES, prefix="val_")
    for start in (0, 2, 4):
        metrics.update(predicted[start : start + 2], truth[start : start + 2])
    result = metrics.compute()
    counted = truth != 255
    each = jaccard_score(truth[counted], predicted[counted], labels=[0, 1, 2], average=None)
    assert result["val_mean_iou"].item() == pytest.approx(each.mean(), abs=1e-6)
    for name, value in zip(NAMES, each, strict=False):
        assert result[f"val_iou_{name}"].item() == pytest.approx(value, abs=1e-6)
    assert result["val_pixel_accuracy"].item() == pytest.approx(accuracy_score(truth[counted], predicted[counted]))


def test_pixels_are_pooled_over_images_and_an_absent_class_is_left_out() -> None:
    truth = torch.zeros(2, 10, 10, dtype=torch.uint8)
    predicted = truth.clone()
    truth[0, 0, :4] = 1  # four pixels that the prediction misses; the other image is right
    metrics = segmentation_metrics(NAMES)
    metrics.update(predicted, truth)
    result = metrics.compute()
    assert result["iou_background"].item() == pytest.approx(196 / 200)
    assert result["iou_wire"].item() == 0
    assert math.isnan(result["iou_ball"].item())
    assert result["mean_iou"].item() == pytest.approx((196 / 200 + 0) / 2)
    assert result["pixel_accuracy"].item() == pytest.approx(196 / 200)


def test_new_names_make_new_metrics_and_the_same_names_keep_what_was_counted() -> None:
    evaluator = SegmentationEvaluator()
    evaluator.set_class_names(NAMES)
    first = evaluator.test_collection
    evaluator.set_class_names(tuple(NAMES))
    assert evaluator.test_collection is first
    evaluator.set_class_names(NAMES[:2])
    assert set(evaluator.test_collection.compute()) == {"mean_iou", "iou_background", "iou_wire", "pixel_accuracy"}
