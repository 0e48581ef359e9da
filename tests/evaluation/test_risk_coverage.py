# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Risk against coverage equals a sort of all pixels; the threshold keeps its promise; pictures are written."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import jaccard_score

from anomalib_aoissl.data.items import SegmentationBatch
from anomalib_aoissl.evaluation.evaluator import SelectiveMetrics
from anomalib_aoissl.evaluation.risk_coverage import (
    BINS,
    RiskCoverage,
    area_under_risk_coverage,
    histogram,
    risk_coverage_curve,
    threshold_of,
    write_risk_coverage,
)


def area_by_sorting(uncertainty: np.ndarray, wrong: np.ndarray) -> float:
    """Return the mean of the risks at each coverage, pixels of rising uncertainty; there may be no ties."""
    assert len(np.unique(uncertainty)) == len(uncertainty)
    sorted_wrong = wrong[np.argsort(uncertainty)]
    return float(np.mean([sorted_wrong[:count].mean() for count in range(1, len(wrong) + 1)]))


def test_area_equals_a_sort_of_all_pixels() -> None:
    generator = np.random.default_rng(0)
    uncertainty = (generator.permutation(BINS)[:600] + 0.5) / BINS  # no two in one bin
    wrong = generator.random(600) < uncertainty
    predicted, truth = torch.from_numpy(wrong.astype(np.uint8)), torch.zeros(600, dtype=torch.uint8)
    metric = RiskCoverage()
    for start in (0, 250):
        part = slice(start, start + 250 if start == 0 else None)
        values = torch.from_numpy(uncertainty[part]).float()
        metric.update(values[None, None], predicted[part][None, None], truth[part][None, None])
    assert metric.compute().item() == pytest.approx(area_by_sorting(uncertainty, wrong), abs=1e-6)


def test_pixels_of_one_bin_count_as_the_mean_over_all_their_orders() -> None:
    bins, wrong = [3, 3, 3, 7, 9, 9], [1, 0, 0, 1, 0, 1]
    orders = [
        [wrong[i] for i in (*first, 3, *last)]
        for first, last in itertools.product(itertools.permutations(range(3)), itertools.permutations((4, 5)))
    ]
    expected = np.mean([[np.mean(order[:n]) for n in range(1, 7)] for order in orders])
    pixels = torch.bincount(torch.tensor(bins), minlength=BINS)
    errors = torch.bincount(torch.tensor(bins), torch.tensor(wrong, dtype=torch.float64), minlength=BINS)
    assert area_under_risk_coverage(pixels, errors).item() == pytest.approx(expected, abs=1e-12)


def test_without_any_order_the_area_is_the_error_rate_and_the_best_order_is_known() -> None:
    pixels, errors = torch.zeros(BINS, dtype=torch.int64), torch.zeros(BINS, dtype=torch.int64)
    pixels[5], errors[5] = 10**9, 10**8
    assert area_under_risk_coverage(pixels, errors).item() == pytest.approx(0.1, abs=1e-9)
    pixels[5], errors[5], pixels[6], errors[6] = 90, 0, 10, 10
    best = sum(wrong / (90 + wrong) for wrong in range(1, 11)) / 100
    assert area_under_risk_coverage(pixels, errors).item() == pytest.approx(best, abs=1e-12)


def test_ignored_pixels_are_not_counted_and_states_add_up_over_ranks() -> None:
    uncertainty, predicted = torch.rand(2, 8, 8), torch.randint(0, 3, (2, 8, 8))
    truth = torch.randint(0, 3, (2, 8, 8))
    truth[:, :2] = 255
    whole, cut = RiskCoverage(), RiskCoverage()
    whole.update(uncertainty, predicted, truth)
    cut.update(uncertainty[:, 2:], predicted[:, 2:], truth[:, 2:])
    assert whole.compute() == cut.compute()
    ranks = [RiskCoverage(), RiskCoverage()]
    for rank, metric in enumerate(ranks):
        metric.update(uncertainty[rank : rank + 1], predicted[rank : rank + 1], truth[rank : rank + 1])
        assert set(metric._reductions) == {"pixels", "errors"}
    for name, reduce in ranks[0]._reductions.items():
        gathered = torch.stack([getattr(metric, name) for metric in ranks])
        assert torch.equal(reduce(gathered), getattr(whole, name))


def test_curve_by_hand() -> None:
    pixels, errors = torch.zeros(BINS, dtype=torch.int64), torch.zeros(BINS, dtype=torch.int64)
    pixels[0], pixels[10], pixels[20] = 5, 3, 2
    errors[10], errors[20] = 1, 2
    curve = risk_coverage_curve(pixels, errors)
    torch.testing.assert_close(curve.coverage, torch.tensor([0.5, 0.8, 1.0]))
    torch.testing.assert_close(curve.risk, torch.tensor([0, 1 / 8, 3 / 10]))


@pytest.mark.parametrize("share", [0.01, 0.05, 0.5, 0.999])
def test_the_threshold_is_the_lowest_edge_with_at_most_the_share_above(share: float) -> None:
    values = torch.rand(5000, generator=torch.Generator().manual_seed(1)) ** 4
    threshold = threshold_of(histogram(values), share)
    assert (values > threshold).float().mean() <= share
    assert ((values * BINS).floor() > threshold * BINS - 2).float().mean() > share  # one bin lower is too low


def test_threshold_of_ties_and_of_nothing() -> None:
    assert threshold_of(histogram(torch.full((9,), 0.5)), 0.05) == 0.5 + 1 / BINS
    assert threshold_of(histogram(torch.tensor([1.0, 0.0])), 0.05) == 1.0
    assert threshold_of(torch.zeros(BINS, dtype=torch.int64), 0.05) == math.inf


def make_batch(**fields: object) -> SegmentationBatch:
    generator = torch.Generator().manual_seed(3)
    truth = torch.randint(0, 3, (4, 10, 12), generator=generator).to(torch.uint8)
    predicted = torch.where(torch.rand(4, 10, 12, generator=generator) < 0.7, truth, (truth + 1) % 3)
    truth[0, :3] = 255
    return SegmentationBatch(image=torch.rand(4, 3, 10, 12), gt_mask=truth, pred_mask=predicted, **fields)


def test_selective_metrics_equal_numpys_and_scikit_learns() -> None:
    abstained = torch.rand(4, 10, 12) < 0.3
    batch = make_batch(uncertainty=torch.rand(4, 10, 12), abstained=abstained)
    metrics = SelectiveMetrics(3)
    metrics.update_from(batch)
    values = metrics.computed()
    truth, predicted = batch.gt_mask.numpy(), batch.pred_mask.numpy()
    counted = truth != 255
    kept = counted & ~abstained.numpy()
    assert values["coverage"].item() == pytest.approx(kept.sum() / counted.sum())
    assert values["selective_risk"].item() == pytest.approx((truth != predicted)[kept].mean())
    expected = jaccard_score(truth[kept], predicted[kept], average="macro")
    assert values["selective_mean_iou"].item() == pytest.approx(expected, abs=1e-6)


def test_without_a_threshold_there_is_only_the_area_and_a_segmenters_map_is_its_uncertainty() -> None:
    batch = make_batch(anomaly_map=torch.rand(4, 1, 10, 12))
    metrics, direct = SelectiveMetrics(3), RiskCoverage()
    metrics.update_from(batch)
    direct.update(batch.anomaly_map.reshape(4, 10, 12), batch.pred_mask, batch.gt_mask)
    assert metrics.computed() == {"aurc": direct.compute()}
    assert not SelectiveMetrics(3).computed()


def test_the_curve_is_drawn(tmp_path: Path) -> None:
    pixels, errors = torch.ones(BINS, dtype=torch.int64), torch.zeros(BINS, dtype=torch.int64)
    errors[-100:] = 1
    write_risk_coverage(tmp_path / "deep" / "a.png", risk_coverage_curve(pixels, errors), (0.98, 0.005))
    with Image.open(tmp_path / "deep" / "a.png") as image:
        shown = np.array(image.convert("RGB")).reshape(-1, 3)
    assert all((shown == colour).all(axis=1).any() for colour in [(0, 114, 178), (213, 94, 0)])  # curve, threshold
