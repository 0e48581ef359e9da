# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The learning rate over a budget of steps, epochs or time; class counts and weights."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Timer
from sklearn.utils.class_weight import compute_class_weight

from anomalib_aoissl.segmenter.class_weights import balanced_weights, class_weights, count_pixels
from anomalib_aoissl.segmenter.schedule import learning_rate_factor, progress


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
    callback = Timer({"seconds": duration})
    callback.load_state_dict({"time_elapsed": {"train": elapsed}})  # as after a resume
    return callback


def test_progress_goes_by_whichever_budget_ends_first() -> None:
    assert progress(trainer(200, 50)) == 0.25
    assert progress(trainer(200, 300)) == 1
    assert progress(trainer(math.inf, 50, timer(15, 60))) == pytest.approx(0.25)
    assert progress(trainer(100, 50, timer(15, 60))) == pytest.approx(0.5)
    assert progress(trainer(1000, 50, timer(45, 60))) == pytest.approx(0.75)
    assert progress(trainer(math.inf, 50, timer(90, 60))) == 1


def test_a_run_without_a_budget_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Give --trainer.max_steps <steps>, --trainer.max_epochs <epochs> or"):
        progress(trainer(math.inf, 0, Timer()))


class Items:
    """A dataset without files."""

    def __init__(self, masks: list[torch.Tensor]) -> None:
        self.masks = masks

    def __len__(self) -> int:
        return len(self.masks)

    def __getitem__(self, index: int) -> Any:
        return SimpleNamespace(gt_mask=self.masks[index])


def test_balanced_weights_are_scikit_learn_s() -> None:
    masks = [torch.randint(0, 3, (8, 9)).to(torch.uint8) for _ in range(3)]
    masks[1][:4] = 255
    labels = np.concatenate([mask.flatten().numpy() for mask in masks])
    labels = labels[labels != 255]
    counts = count_pixels(Items(masks), 4)
    assert counts.tolist() == np.bincount(labels, minlength=4).tolist()
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(balanced_weights(counts).numpy(), [*expected, 0], rtol=1e-6)


def test_class_weights_say_what_is_allowed() -> None:
    counts, names = torch.tensor([5, 5]), ["background", "wire"]
    assert class_weights(None, counts, names) is None
    assert class_weights([1, 3], counts, names) == [1.0, 3.0]
    assert class_weights("balanced", counts, names) == [1.0, 1.0]
    uneven = torch.tensor([90, 10])
    assert class_weights("root", uneven, names) == pytest.approx([(100 / 180) ** 0.5, (100 / 20) ** 0.5])
    with pytest.raises(ValueError, match=r"class_weights='even' must be one of \['balanced', 'root'\], a list"):
        class_weights("even", counts, names)
    with pytest.raises(ValueError, match=r"has 3 numbers, the data has 2 classes: \['background', 'wire'\]"):
        class_weights([1, 2, 3], counts, names)
