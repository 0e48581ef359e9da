# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The exported resize equals torchvision's antialiased one, light does not matter, and checkpoints keep the sizes."""

import numpy as np
import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms.v2 import Normalize
from torchvision.transforms.v2.functional import resize

from anomalib_aoissl.data.resizing import resize_labels
from anomalib_aoissl.deployment.tiles.light import FIXED_LIGHT
from anomalib_aoissl.models.preprocessing import (
    JOINT_LIGHT,
    LIGHT,
    CentredResize,
    SegmentationPreProcessor,
    StandardizeLight,
    antialiased_resize,
    resize_masks,
    standardize_light,
)


@pytest.mark.parametrize("source", [(480, 640), (37, 91), (64, 64), (20, 30), (300, 20)])
@pytest.mark.parametrize("target", [(64, 64), (32, 96)])
def test_resize_equals_torchvisions(source: tuple[int, int], target: tuple[int, int]) -> None:
    images = torch.rand(2, 3, *source)
    expected = resize(images, list(target), antialias=True)
    torch.testing.assert_close(antialiased_resize(images, target), expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("source", [(480, 640), (37, 91), (64, 64), (20, 30), (300, 20)])
@pytest.mark.parametrize("target", [(384, 512), (32, 96)])
def test_a_resized_mask_has_the_class_at_each_pixels_centre(source: tuple[int, int], target: tuple[int, int]) -> None:
    mask = np.random.default_rng(0).integers(0, 256, source, dtype=np.uint8)
    rows, columns = (
        [(2 * i + 1) * old // (2 * new) for i in range(new)] for old, new in zip(source, target, strict=True)
    )
    expected = mask[np.ix_(rows, columns)]
    masks = torch.from_numpy(mask)
    np.testing.assert_array_equal(resize_labels(mask, target), expected)
    np.testing.assert_array_equal(resize_masks(masks, target).numpy(), expected)
    resized = CentredResize(list(target), antialias=True)(tv_tensors.Mask(masks[None]))
    assert isinstance(resized, tv_tensors.Mask)
    np.testing.assert_array_equal(resized.numpy()[0], expected)


def test_a_mask_stays_on_its_image() -> None:
    square = torch.zeros(480, 640, dtype=torch.uint8)
    square[200:260, 310:390] = 1
    transform = SegmentationPreProcessor((384, 512), (0.0,) * 3, (1.0,) * 3).resize
    image, mask = transform(tv_tensors.Image(square.float().expand(3, -1, -1)), tv_tensors.Mask(square))
    places = torch.stack(torch.meshgrid(torch.arange(384.0), torch.arange(512.0), indexing="ij"))
    centres = [(weights * places).sum(dim=(1, 2)) / weights.sum() for weights in (image[0], mask.float())]
    torch.testing.assert_close(centres[0], centres[1], atol=0.05, rtol=0)


def test_fixed_light_keeps_grey_levels() -> None:
    images = torch.rand(2, 3, 20, 30)
    images[0] *= 0.1
    expected = np.log((images.double().numpy() + 0.1) / 0.1) / np.log(11)  # 0 is 0, and 1 is 1
    whole = torch.rand(2, 3, 40, 60)  # whatever the picture around is
    for result in (standardize_light(images, light=FIXED_LIGHT), standardize_light(images, whole, light=FIXED_LIGHT)):
        np.testing.assert_allclose(result.numpy(), expected, atol=1e-6)


def test_forward_equals_the_training_transform() -> None:
    pre_processor = SegmentationPreProcessor((32, 48), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    images = torch.rand(1, 3, 70, 50)
    resized = resize(images, [32, 48], antialias=True)
    expected = Normalize([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])(standardize_light(resized))
    torch.testing.assert_close(pre_processor(images), expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(pre_processor.transform(images), expected)
    torch.testing.assert_close(pre_processor.see(resized), expected)


@pytest.mark.parametrize("joint", [False, True])
def test_standardised_light_equals_numpy_plane_by_plane_or_image_by_image(joint: bool) -> None:
    images = torch.rand(3, 2, 20, 30) ** torch.tensor([3.0, 1.0])[:, None, None]
    result = standardize_light(images, light=JOINT_LIGHT if joint else LIGHT)
    for image, standardised in zip(images.double().numpy(), result.numpy(), strict=True):
        logarithms = np.log(image + 0.1)
        for plane in range(2):
            of = logarithms if joint else logarithms[plane]
            expected = (logarithms[plane] - of.mean()) / (of.std() + 1e-3) * 0.2 + 0.5
            np.testing.assert_allclose(standardised[plane], expected.clip(0, 1), atol=1e-5)
    assert (standardize_light(torch.zeros(1, 3, 4, 4)) - 0.5).abs().max() < 1e-4


def test_gain_and_gamma_of_bright_images_hardly_matter() -> None:
    images = 0.6 + 0.4 * torch.rand(2, 3, 20, 30)
    expected = standardize_light(images)
    for changed in (0.7 * images, images**1.5):
        difference = (standardize_light(changed) - expected).abs().mean()
        assert difference < 0.02
        assert difference < 0.1 * (changed - images).abs().mean() / images.std() * 0.2


def test_masks_keep_their_classes() -> None:
    mask = tv_tensors.Mask(torch.randint(0, 256, (5, 7), dtype=torch.uint8))
    image = tv_tensors.Image(torch.rand(3, 5, 7))
    new, same = StandardizeLight()(image, mask)
    assert torch.equal(same, mask)
    assert isinstance(new, tv_tensors.Image)
    torch.testing.assert_close(
        new.as_subclass(torch.Tensor), standardize_light(image.as_subclass(torch.Tensor)[None])[0]
    )


def test_checkpoint_configuration_restores_size_and_constants() -> None:
    saved = SegmentationPreProcessor((32, 48), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    loaded = SegmentationPreProcessor((64, 64), (0.5,) * 3, (0.5,) * 3)
    constants = {"image_size": [32, 48], "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    assert saved.checkpoint_config() == {**constants, "light": "planes"}
    loaded.load_checkpoint_config(saved.checkpoint_config())
    images = torch.rand(1, 3, 70, 50)
    torch.testing.assert_close(loaded(images), saved(images))
    loaded.load_checkpoint_config(constants)  # as version 0.2.0 saved it
    resized = antialiased_resize(images, (32, 48))
    expected = Normalize(constants["mean"], constants["std"])(standardize_light(resized, light=JOINT_LIGHT))
    for seen in (loaded(images), loaded.see(resized), loaded.transform(images)):
        torch.testing.assert_close(seen, expected)
