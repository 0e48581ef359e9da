# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What a fit says of the labelled images."""

import logging

import numpy as np
import pytest
import torch

from anomalib_aoissl.pixel_head.learning.describing import pixel_counts, said_counts, warn_of_confusion
from anomalib_aoissl.pixel_head.learning.labelled import LabelledImage


def test_labelled_pixels_are_counted_and_said() -> None:
    first = torch.tensor([[0, 0, 3], [3, 255, 255]], dtype=torch.uint8)
    second = torch.tensor([[0, 0, 0], [0, 255, 3]], dtype=torch.uint8)
    counts = pixel_counts([LabelledImage(torch.zeros(1, 3, 2, 3), mask, 0, 0) for mask in (first, second)], 4)
    assert counts.tolist() == [6, 0, 0, 3]
    assert said_counts(counts, ["ground", "wire", "ball", "pad"]) == "0 ground 66.67%, 3 pad 33.33%"
    assert said_counts(torch.zeros(2), ["ground", "wire"]) == ""


def test_classes_are_named_that_are_taken_for_each_other(caplog: pytest.LogCaptureFixture) -> None:
    names = ["ground", "die", "turned die", "wire"]
    table = np.array([[90.0, 5, 5, 0], [0, 5, 5, 0], [6, 80, 114, 0], [2.9, 0, 0, 7.1]])
    with caplog.at_level(logging.WARNING):
        warn_of_confusion(table, names)
    assert "takes 50% of die for turned die, 40% of turned die for die. Label" in caplog.text
    assert "wire" not in caplog.text  # 29 % are below the limit
    caplog.clear()
    warn_of_confusion(np.zeros((4, 4)), names)
    assert not caplog.text
