# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The learning rate over a budget of steps, epochs or time."""

import math
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.callbacks import Timer

from anomalib_aoissl.segmenter.budget import learning_rate_factor, progress


def test_the_rate_rises_then_falls_as_a_cosine_to_zero() -> None:
    assert learning_rate_factor(0, 0.1) == pytest.approx(0.01)
    assert learning_rate_factor(0.05, 0.1) == pytest.approx(0.505)
    assert learning_rate_factor(0.1, 0.1) == 1
    for done in (0.2, 0.5, 0.9):
        expected = (1 + math.cos(math.pi * (done - 0.1) / 0.9)) / 2
        assert learning_rate_factor(done, 0.1) == pytest.approx(expected)
    assert learning_rate_factor(1, 0.1) == learning_rate_factor(7, 0.1) == 0
    assert learning_rate_factor(0, 0) == 1


def trainer(steps: float, done: int, *callbacks: Any) -> Any:
    strategy = SimpleNamespace(broadcast=lambda value: value)
    return SimpleNamespace(
        estimated_stepping_batches=steps, global_step=done, callbacks=list(callbacks), strategy=strategy
    )


def timer(elapsed: float, duration: float) -> Timer:
    callback = Timer(timedelta(seconds=duration))
    callback.load_state_dict({"time_elapsed": {"train": elapsed}})  # as after a resume
    return callback


def test_progress_goes_by_whichever_budget_ends_first() -> None:
    assert progress(trainer(200, 50)) == 0.25
    assert progress(trainer(200, 300)) == 1
    assert progress(trainer(math.inf, 50, timer(15, 60))) == pytest.approx(0.25)
    assert progress(trainer(100, 50, timer(15, 60))) == pytest.approx(0.5)
    assert progress(trainer(1000, 50, timer(45, 60))) == pytest.approx(0.75)
    assert progress(trainer(math.inf, 50, timer(90, 60))) == 1


def test_a_run_without_a_budget_raises() -> None:
    with pytest.raises(ValueError, match=r"Give --trainer.max_steps <steps>, --trainer.max_epochs <epochs> or"):
        progress(trainer(math.inf, 0, Timer()))
