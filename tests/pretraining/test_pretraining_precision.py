# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Training in half precision."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from small_runs import CPU, SMALL, Files, MakeEncoder, callback_of

from anomalib_aoissl.pretraining.objectives.dino import SelfDistillation
from anomalib_aoissl.pretraining.training.module import PretrainingModule
from anomalib_aoissl.pretraining.training.objective import Objective, Progress


def test_bf16_trains(make_encoder: MakeEncoder, pictures: Files, tmp_path: Path) -> None:
    for objective in SMALL:
        encoder = make_encoder()
        arguments = {**CPU, "precision": "bf16-mixed"}
        callback_of(objective, tmp_path).pretrain(encoder, pictures, trainer_arguments=arguments)
        assert all(torch.isfinite(value).all() for value in encoder.vit.state_dict().values())


def _fp16(**scaler: float) -> MixedPrecision:
    """Return what precision="16-mixed" is on a GPU, on the CPU."""
    return MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", **scaler))


@pytest.mark.parametrize("objective", list(SMALL))
def test_fp16_skips_steps_that_overflow_and_goes_on(
    make_encoder: MakeEncoder, pictures: Files, tmp_path: Path, objective: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    precision, seen = _fp16(init_scale=2.0**40, backoff_factor=2.0**-40), []
    after_step = Objective.after_step if objective == "mae" else SelfDistillation.after_step

    def spy(self: Objective, progress: Progress) -> None:
        after_step(self, progress)  # type: ignore[arg-type]
        weights = torch.cat([p.detach().flatten() for p in self.vit.parameters()])
        seen.append((weights, all(value.isfinite().all() for value in self.state_dict().values())))

    monkeypatch.setattr(Objective if objective == "mae" else SelfDistillation, "after_step", spy)
    encoder = make_encoder()
    arguments = {**CPU, "plugins": [precision]}
    callback_of(objective, tmp_path).pretrain(encoder, pictures, trainer_arguments=arguments)
    assert precision.scaler is not None
    assert precision.scaler.get_scale() == 1  # one step was skipped
    assert all(finite for _, finite in seen)  # student, teacher, heads and centres
    assert len(seen) == 6
    assert all(not torch.equal(a, b) for (a, _), (b, _) in itertools.pairwise(seen[:-1]))  # the last rate is 0


def test_fp16_clips_gradients_that_are_unscaled(
    make_encoder: MakeEncoder, pictures: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    norms: list[float] = []

    def spy(self: PretrainingModule, *_: Any) -> None:  # Lightning calls it right before it clips
        norms.append(float(torch.nn.utils.get_total_norm([p.grad for p in self.parameters() if p.grad is not None])))

    monkeypatch.setattr(PretrainingModule, "on_before_optimizer_step", spy)
    for arguments in (CPU, {**CPU, "plugins": [_fp16(init_scale=1024.0)]}):
        folder = tmp_path / str(len(norms))
        callback_of("mae", folder).pretrain(make_encoder(), pictures, trainer_arguments=arguments)
    assert norms[6:] == pytest.approx(norms[:6], rel=0.03)
