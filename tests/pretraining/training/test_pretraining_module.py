# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The training loop of an objective: what a step is given, and which weights decay."""

from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import nn

from anomalib_aoissl.pretraining.training.module import PretrainingModule
from anomalib_aoissl.pretraining.training.objective import Objective, Views


class Watched(Objective):
    """An objective that notes the crops that it is given; its weights are of every kind that may decay or not."""

    name, weight_decay = "watched", 0.5

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.linear, self.norm, self.convolution = nn.Linear(3, 2), nn.LayerNorm(4), nn.Conv2d(1, 2, 3)
        self.token, self.positions = nn.Parameter(torch.ones(1, 1, 4)), nn.Parameter(torch.ones(1, 5, 4))
        self.given: Views = {}

    def crop_kinds(self) -> dict[str, Any]:
        return {}

    def forward(self, views: Views, generator: torch.Generator, progress: Any) -> dict[str, torch.Tensor]:
        del generator, progress
        self.given = views
        return {"loss": self.linear.weight.sum()}


def module(light: Any) -> PretrainingModule:
    """Return the loop of a watched objective, at the first step of ten, without warm-up."""
    planes: dict[str, Any] = {"mean": (0.5, 0.0), "std": (0.25, 1.0)}
    made = PretrainingModule(Watched(), learning_rate=0.1, warmup=0.0, light=light, seed=0, **planes)
    made._trainer = SimpleNamespace(global_step=0, global_rank=0, estimated_stepping_batches=10)  # type: ignore[assignment]
    made.log_dict = Mock()
    return made


def test_a_step_sees_crops_under_the_random_light() -> None:
    crops = torch.randint(0, 256, (2, 3, 2, 8, 8), dtype=torch.uint8)  # [B, V, C, h, w]

    def half(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return images * torch.rand((), generator=generator)

    loop = module(half)
    loop.training_step({"global": crops}, 3)
    gain = torch.rand((), generator=loop.generator(3))
    expected = crops / 255 * gain
    expected[:, :, 0] = (expected[:, :, 0] - 0.5) / 0.25
    torch.testing.assert_close(loop.objective.given["global"], expected)


def test_only_matrices_and_filters_decay() -> None:
    loop = module(None)
    before = {name: parameter.detach().clone() for name, parameter in loop.named_parameters()}
    for parameter in loop.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer = loop.configure_optimizers()["optimizer"]
    optimizer.step()
    # Without a gradient AdamW changes a weight by its decay alone, to 1 - learning rate * decay of it.
    known = {name: value for name, value in loop.named_parameters() if before[name].all()}
    factors = {name: float((value.detach() / before[name]).mean()) for name, value in known.items()}
    decayed = {"objective.linear.weight", "objective.convolution.weight"}
    assert factors == pytest.approx({name: 0.95 if name in decayed else 1.0 for name in factors}, abs=1e-6)
    assert {"objective.linear.bias", "objective.norm.weight", "objective.token", "objective.positions"} < set(factors)
