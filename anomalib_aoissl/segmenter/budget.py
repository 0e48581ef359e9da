# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Where a run stands in its budget of steps or time, and the learning rate that follows from it."""

from __future__ import annotations

import math

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Timer

from anomalib_aoissl.pretraining.training.schedule import half_cosine

_FIRST = 0.01  # share of the peak at the start of the warm-up: a step at rate 0 would be lost


def learning_rate_factor(done: float, warmup: float) -> float:
    """Return the share of the peak learning rate: a linear rise over the warm-up, then half a cosine to 0 [0].

    [0]: Loshchilov and Hutter, SGDR, 2016, arXiv 1608.03983.

    Args:
        done: Share of the budget that is used, in [0, 1].
        warmup: Share of the budget in which the rate rises, in [0, 1).
    """
    done = min(max(done, 0.0), 1.0)
    if done < warmup:
        return _FIRST + (1 - _FIRST) * done / warmup
    return half_cosine((done - warmup) / (1 - warmup))


def progress(trainer: Trainer) -> float:
    """Return the share of the budget that is used, in [0, 1]: of the steps or of the time, whichever ends first.

    The same on all processes: their clocks differ, and so would their learning rates.

    Raises:
        ValueError: If neither steps, epochs nor time are limited.
    """
    steps = float(trainer.estimated_stepping_batches)
    timed = time_used(trainer)
    if not math.isfinite(steps) and timed is None:
        msg = (
            "The learning rate falls to 0 where the budget ends, but there is none. Give --trainer.max_steps <steps>, "
            "--trainer.max_epochs <epochs> or --trainer.max_time DD:HH:MM:SS."
        )
        raise ValueError(msg)
    done = trainer.global_step / max(steps, 1.0)
    if timed is not None:
        done = trainer.strategy.broadcast(max(done, timed))
    return min(done, 1.0)


def time_used(trainer: Trainer) -> float | None:
    """Return the share of the trainer's ``max_time`` that has passed, or None where there is no such limit."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, Timer):
            left = callback.time_remaining()
            if left is not None:
                elapsed = callback.time_elapsed()
                return min(elapsed / max(elapsed + left, 1e-9), 1.0)
    return None
