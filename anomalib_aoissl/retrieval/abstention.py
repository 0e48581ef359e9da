# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""When retrieval does not know: the threshold of the uncertainty above which it abstains."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from anomalib_aoissl.deployment.abstaining import NOVELTY_POWER
from anomalib_aoissl.evaluation.risk_coverage import BINS, histogram, threshold_of


class Abstention(nn.Module):
    """The calibration of a model: a histogram of uncertainties, from which the threshold for any share follows.

    Args:
        share: Share of the calibration's pixels that may be abstained from; None for no abstention.
    """

    pixels: torch.Tensor
    power: torch.Tensor  # of novelty in these uncertainties

    def __init__(self, share: float | None = None) -> None:
        super().__init__()
        self.share = share
        self.register_buffer("pixels", torch.zeros(BINS, dtype=torch.int64))
        self.register_buffer("power", torch.tensor(NOVELTY_POWER))

    @property
    def calibrated(self) -> bool:
        """Whether there is a calibration."""
        return bool(self.pixels.sum() > 0)

    @property
    def threshold(self) -> float | None:
        """Uncertainty above which the model abstains; None where it was not asked to, or not calibrated."""
        return threshold_of(self.pixels, self.share) if self.share is not None and self.calibrated else None

    def clear(self) -> None:
        """Forget the calibration."""
        self.pixels.zero_()
        self.power.fill_(NOVELTY_POWER)

    def add(self, uncertainty: torch.Tensor, weights: torch.Tensor | None = None) -> None:
        """Add pixels of any shape to the calibration, each as often as its weight says."""
        self.pixels += histogram(uncertainty, weights).to(self.pixels)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        """Load the calibration; a checkpoint from before there was one has none, one of 0.2.0 that of plain novelty."""
        state_dict.setdefault(f"{prefix}power", torch.tensor(1 if f"{prefix}pixels" in state_dict else NOVELTY_POWER))
        state_dict.setdefault(f"{prefix}pixels", torch.zeros_like(self.pixels))
        super()._load_from_state_dict(state_dict, prefix, *arguments)
