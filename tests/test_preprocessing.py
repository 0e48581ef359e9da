# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The exported resize equals torchvision's antialiased one, and the pre-processor survives a checkpoint."""

import pytest
import torch
from torchvision.transforms.v2 import Normalize
from torchvision.transforms.v2.functional import resize

from anomalib_aoissl.preprocessing import SegmentationPreProcessor, antialiased_resize


@pytest.mark.parametrize("source", [(480, 640), (37, 91), (64, 64), (20, 30), (300, 20)])
@pytest.mark.parametrize("target", [(64, 64), (32, 96)])
def test_resize_equals_torchvisions(source: tuple[int, int], target: tuple[int, int]) -> None:
    images = torch.rand(2, 3, *source)
    expected = resize(images, list(target), antialias=True)
    torch.testing.assert_close(antialiased_resize(images, target), expected, atol=2e-5, rtol=0)


def test_forward_equals_the_training_transform() -> None:
    pre_processor = SegmentationPreProcessor((32, 48), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    images = torch.rand(1, 3, 70, 50)
    expected = Normalize([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])(resize(images, [32, 48], antialias=True))
    torch.testing.assert_close(pre_processor(images), expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(pre_processor.transform(images), expected)


def test_checkpoint_configuration_restores_size_and_constants() -> None:
    saved = SegmentationPreProcessor((32, 48), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    loaded = SegmentationPreProcessor((64, 64), (0.5,) * 3, (0.5,) * 3)
    loaded.load_checkpoint_config(saved.checkpoint_config())
    images = torch.rand(1, 3, 70, 50)
    torch.testing.assert_close(loaded(images), saved(images))
