# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What an exported model learns from is what training sees: images and masks resized and shifted as torch does."""

import numpy as np
import pytest
import torch
from torchvision.transforms.v2.functional import resize
from torchvision.tv_tensors import Mask

from anomalib_aoissl.retrieval.openvino_bank import BankSettings
from anomalib_aoissl.retrieval.openvino_grids import grids_of, resize_labels, resize_planes
from anomalib_aoissl.retrieval.patches import patch_labels
from anomalib_aoissl.retrieval.shifts import shift_offsets, shifted_images, shifted_masks


@pytest.mark.parametrize("shifts", [1, 2, 4])
def test_grids_are_those_of_torch(shifts: int) -> None:
    offsets = shift_offsets(shifts, (8, 6))
    settings = BankSettings(5, (32, 48), (8, 6), None, tuple(offsets))
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(3, 32, 48, generator=generator)
    mask = torch.randint(0, 5, (32, 48), generator=generator).to(torch.uint8)
    crops, labels = grids_of(image.numpy(), mask.numpy(), settings)
    np.testing.assert_allclose(crops, shifted_images(image[None], offsets).numpy(), atol=1e-6)
    expected = torch.cat([patch_labels(shifted_masks(mask[None], offset), (8, 6))[0] for offset in offsets])
    np.testing.assert_array_equal(labels, expected.numpy())


def test_images_are_resized_as_torchvision_does() -> None:
    generator = torch.Generator().manual_seed(0)
    for height, width in ((40, 70), (96, 128), (301, 47)):
        image = torch.rand(3, height, width, generator=generator)
        expected = resize(image, [96, 128], antialias=True).numpy()
        np.testing.assert_allclose(resize_planes(image.numpy(), (96, 128)), expected, atol=1e-5)


def test_masks_are_resized_to_the_pixels_that_training_sees() -> None:
    generator = torch.Generator().manual_seed(0)
    for height, width in ((40, 70), (33, 47), (512, 683), (7, 1000)):
        mask = torch.randint(0, 256, (height, width), generator=generator).to(torch.uint8)
        expected = resize(Mask(mask), [96, 128]).numpy()
        np.testing.assert_array_equal(resize_labels(mask.numpy(), (96, 128)), expected)
