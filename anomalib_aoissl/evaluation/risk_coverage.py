# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Risk against coverage: how many of the pixels on which a model answers are wrong, and where it should abstain."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torchmetrics import Metric

from anomalib_aoissl.data.files import whole_file
from anomalib_aoissl.data.indices import IGNORE_INDEX

BINS = 4096
"""Bins of an uncertainty in [0, 1]; a power of two, so that the edges are exact."""


def uncertainty_bins(uncertainty: torch.Tensor) -> torch.Tensor:
    """Return the bin of each uncertainty, int64 in 0..BINS - 1; bin b holds [b / BINS, (b + 1) / BINS)."""
    return (uncertainty.float() * BINS).floor().clamp(0, BINS - 1).to(torch.int64)


def histogram(uncertainty: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    """Return the number of pixels ``[BINS]`` int64 in each bin, or the sum of their whole-numbered weights."""
    bins = uncertainty_bins(uncertainty).flatten()
    weights = torch.ones_like(bins) if weights is None else weights.flatten().to(torch.int64)
    return torch.zeros(BINS, dtype=torch.int64, device=bins.device).index_add_(0, bins, weights)


def threshold_of(pixels: torch.Tensor, share: float) -> float:
    """Return the uncertainty above which at most ``share`` of the pixels of a histogram ``[BINS]`` lie.

    It is the upper edge of the lowest bin that this holds for; infinite where there are no pixels.
    """
    total = int(pixels.sum())
    if not total:
        return math.inf
    above = total - pixels.cumsum(0)  # pixels in higher bins
    lowest = int((above <= share * total).nonzero()[0])
    return (lowest + 1) / BINS


@dataclass(frozen=True)
class Curve:
    """Risk against coverage, a point for each bin that holds a pixel.

    Attributes:
        coverage: Share of the pixels whose uncertainty lies in this bin or below, rising to 1.
        risk: Share of wrong ones among them.
    """

    coverage: torch.Tensor
    risk: torch.Tensor


def risk_coverage_curve(pixels: torch.Tensor, errors: torch.Tensor) -> Curve:
    """Return the curve of the pixels and the wrong pixels ``[BINS]`` in each bin."""
    used = pixels > 0
    covered, wrong = pixels[used].cumsum(0), errors[used].cumsum(0)
    return Curve(covered / pixels.sum().clamp(min=1), wrong / covered)


def area_under_risk_coverage(pixels: torch.Tensor, errors: torch.Tensor) -> torch.Tensor:
    """Return the area under the risk-coverage curve, a float64 scalar in [0, 1]; NaN without pixels.

    Of n pixels in the order of their uncertainty, the surest first, it is the mean over i = 1..n of the share of wrong
    ones among the first i. Pixels of one bin have no order; their mean over all orders is taken. With N pixels and E
    errors before a bin of m pixels, e of them wrong, that is the sum over j = 1..m of (E + j e/m) / (N + j) =
    e + (E - N e/m) (H(N + m) - H(N)), H the harmonic numbers.

    Args:
        pixels: ``[BINS]``, pixels in each bin.
        errors: ``[BINS]``, wrong ones among them.
    """
    used = pixels > 0
    m, e = pixels[used].cpu().double(), errors[used].cpu().double()
    before, wrong = m.cumsum(0) - m, e.cumsum(0) - e
    harmonic = torch.special.digamma(before + m + 1) - torch.special.digamma(before + 1)
    return (e + (wrong - before * e / m) * harmonic).sum() / m.sum()


class RiskCoverage(Metric):
    """Area under the risk-coverage curve of the pixels, pooled over the split.

    The curve is that of selective classification [0], its area AURC that of [1]; the risk is the share of wrong
    pixels. 0 is perfect, and a random order of the pixels gives 1 - pixel accuracy. Pixels of ground truth 255 are not
    counted. Kept are two histograms, so memory does not grow with the number of pixels.

    [0]: Geifman and El-Yaniv, 2017, arXiv 1705.08500. [1]: Geifman, Uziel and El-Yaniv, 2019, arXiv 1805.08206.

    Attributes:
        curve: The whole curve, of the last `compute`.
    """

    full_state_update = False
    higher_is_better = False
    pixels: torch.Tensor
    errors: torch.Tensor

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.curve: Curve | None = None
        self.add_state("pixels", torch.zeros(BINS, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("errors", torch.zeros(BINS, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, uncertainty: torch.Tensor, predicted: torch.Tensor, truth: torch.Tensor) -> None:
        """Count pixels.

        Args:
            uncertainty: ``[B, H, W]`` in [0, 1].
            predicted: ``[B, H, W]`` class indices.
            truth: ``[B, H, W]`` class indices, 255 where ignored.
        """
        counted = truth != IGNORE_INDEX
        self.pixels += histogram(uncertainty[counted])
        self.errors += histogram(uncertainty[counted], (predicted != truth)[counted])

    def compute(self) -> torch.Tensor:
        """Return the area, float32."""
        self.curve = risk_coverage_curve(self.pixels.cpu(), self.errors.cpu())
        return area_under_risk_coverage(self.pixels, self.errors).to(self.device, torch.float32)


class Abstained(Metric):
    """Share of pixels on which the model answers (coverage), or of wrong ones among them (risk); pixels are pooled.

    Args:
        measure: "coverage" or "risk"; the risk is NaN where the model abstains from all pixels.
    """

    full_state_update = False
    counts: torch.Tensor

    def __init__(self, measure: str, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.measure = measure
        self.add_state("counts", torch.zeros(3, dtype=torch.int64), dist_reduce_fx="sum")  # all, kept, kept and wrong

    def update(self, abstained: torch.Tensor, predicted: torch.Tensor, truth: torch.Tensor) -> None:
        """Count pixels of masks ``[B, H, W]``: where the model abstained, its class indices, the true ones."""
        counted = truth != IGNORE_INDEX
        kept = counted & ~abstained
        wrong = kept & (predicted != truth)
        self.counts += torch.stack([counted.sum(), kept.sum(), wrong.sum()]).to(self.counts)

    def compute(self) -> torch.Tensor:
        """Return the share, float32."""
        counted, kept, wrong = self.counts
        return (kept / counted if self.measure == "coverage" else wrong / kept).float()


def write_risk_coverage(path: str | Path, curve: Curve, point: tuple[float, float] | None = None) -> None:
    """Write a picture of the curve as PNG, whole or not at all.

    Args:
        path: File to write.
        curve: Curve to draw.
        point: (coverage, risk) of the model with its threshold, marked where it is given.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(100 * curve.coverage, 100 * curve.risk, color="#0072b2", label="surest pixels first")
    last = 100 * float(curve.risk[-1])
    axes.axhline(last, color="0.6", linestyle=":", label=f"all pixels: {last:.1f} %")
    if point is not None:
        coverage, risk = (100 * value for value in point)
        axes.plot(coverage, risk, "o", color="#d55e00", label=f"threshold: {risk:.1f} % of {coverage:.1f} %")
    axes.set(xlabel="coverage: pixels on which the model answers, %", ylabel="risk: wrong ones among them, %")
    axes.set(xlim=(0, 101), ylim=(0, None))
    axes.legend(frameon=False, loc="center left")
    axes.spines[["top", "right"]].set_visible(False)
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
