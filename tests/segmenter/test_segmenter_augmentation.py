# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The augmentation: masks follow images, ignore fills, rare classes stay, packed planes stay packed."""

import pytest
import torch
from torchvision import tv_tensors

from anomalib_aoissl.segmenter.augmentation import (
    LightAndSensor,
    QuarterTurn,
    Window,
    inspection_augmentation,
    rare_pixel,
    unpack_lights,
)


def picture(height: int, width: int, planes: int = 3) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
    """Return an image that shows its own mask: class 1 is 0.5 bright, class 2 is white."""
    mask = torch.zeros(height, width, dtype=torch.uint8)
    mask[height // 4 : height // 2, width // 3 :] = 1
    mask[-6:-4, 2:8] = 2
    image = (mask / 2.0).expand(planes, -1, -1).clone()
    return tv_tensors.Image(image), tv_tensors.Mask(mask)


@pytest.mark.parametrize("size", [(64, 64), (48, 80)])
@pytest.mark.parametrize("planes", [1, 3, 4])
def test_the_result_has_the_size_and_only_known_indices(size: tuple[int, int], planes: int) -> None:
    augment = inspection_augmentation(size, "strong")
    for _ in range(10):
        image, mask = augment(*picture(70, 90, planes))
        assert image.shape == (planes, *size)
        assert mask.shape == size
        assert mask.dtype == torch.uint8
        assert set(mask.unique().tolist()) <= {0, 1, 2, 255}
        assert 0 <= image.min() <= image.max() <= 1


@pytest.mark.parametrize("size", [(64, 64), (40, 70), (8, 9)])
def test_the_mild_one_moves_pixels_and_changes_none(size: tuple[int, int]) -> None:
    augment, moved = inspection_augmentation(size), 0
    for _ in range(20):
        mask = tv_tensors.Mask(torch.randint(0, 3, size, dtype=torch.uint8))
        image, labels = augment(tv_tensors.Image((mask / 2.0).expand(2, -1, -1).clone()), mask)
        assert image.shape[-2:] == labels.shape
        known = labels != 255
        assert torch.equal(image[1][known], labels[known] / 2.0)
        assert image.max() <= 1
        moved += not torch.equal(labels, mask)
    assert moved > 10


def test_other_names_are_refused() -> None:
    assert inspection_augmentation((64, 64), "none") is None
    with pytest.raises(
        ValueError, match=r"augment='much' is unknown; the augmentations are \['mild', 'strong', 'none'\]"
    ):
        inspection_augmentation((64, 64), "much")


def test_the_mask_follows_the_image() -> None:
    augment = inspection_augmentation((64, 64), "strong")
    augment.transforms = augment.transforms[:-1]  # without the light
    for _ in range(20):
        image, mask = augment(*picture(64, 64))
        known = mask != 255
        near = (image[0] * 2 - mask).abs()[known] < 0.5
        assert near.float().mean() > 0.93  # all but blurred edges
        assert image[:, ~known].abs().mean() < 0.1 or known.all()


def test_what_lies_outside_is_ignored() -> None:
    image, mask = Window((64, 64), zoom=(0.5, 0.5))(*picture(64, 64))
    outside = (mask == 255).float().mean()
    assert outside == pytest.approx(0.75, abs=0.03)
    assert image[:, mask == 255].mean() < 0.01


def test_windows_keep_a_rare_class() -> None:
    shows = Window((32, 32), zoom=(4.0, 4.0), rare=1.0)
    never = Window((32, 32), zoom=(4.0, 4.0), rare=0.0)
    counts = {True: 0, False: 0}
    for _ in range(60):
        for window in (shows, never):
            counts[window is shows] += int((window(*picture(128, 128))[1] == 2).any())
    assert counts[True] > 2 * counts[False]
    assert counts[True] >= 20  # class 2 is drawn as often as class 1, which has a hundred times its pixels


def test_a_window_without_foreground_or_mask_is_uniform() -> None:
    image = tv_tensors.Image(torch.rand(3, 40, 40))
    assert rare_pixel(torch.full((4, 4), 255, dtype=torch.uint8)) is None
    assert Window((16, 24), rare=1.0)(image).shape == (3, 16, 24)
    assert Window((16, 24), rare=1.0)(image, tv_tensors.Mask(torch.zeros(40, 40, dtype=torch.uint8)))[1].shape == (
        16,
        24,
    )


@pytest.mark.parametrize(("size", "allowed"), [((8, 8), 4), ((8, 12), 2)])
def test_quarter_turns_fit_the_shape(size: tuple[int, int], allowed: int) -> None:
    image = torch.arange(size[0] * size[1]).float().reshape(1, *size)
    seen = {QuarterTurn()(tv_tensors.Image(image)).flatten()[0].item() for _ in range(60)}
    assert len(seen) == allowed


@pytest.mark.parametrize("lights", [1, 2])
def test_packed_planes_stay_packed(lights: int) -> None:
    planes = torch.rand(lights, 30, 30)
    packed = planes.expand(3, -1, -1) if lights == 1 else torch.cat([planes, planes.mean(dim=0, keepdim=True)])
    assert len(unpack_lights(packed)) == lights
    for _ in range(10):
        result = LightAndSensor(drop=0.0)(tv_tensors.Image(packed))
        assert len(unpack_lights(result)) == lights
        assert not torch.equal(result, packed)


def test_lights_are_swapped_and_dropped_but_colours_never_change_places() -> None:
    quiet = {"gain": 0.0, "blur": 0.0, "noise": 0.0}
    two = torch.rand(2, 8, 8).clamp(1e-3, 1)
    packed = tv_tensors.Image(torch.cat([two, two.mean(dim=0, keepdim=True)]))
    torch.testing.assert_close(
        LightAndSensor(swap=1.0, drop=0.0, **quiet)(packed)[:2].as_subclass(torch.Tensor), two.flip(0)
    )
    dropped = LightAndSensor(swap=0.0, drop=1.0, **quiet)(packed)
    assert torch.equal(dropped[0], dropped[1])
    colours = tv_tensors.Image(torch.rand(3, 8, 8).clamp(1e-3, 1))
    torch.testing.assert_close(LightAndSensor(swap=1.0, drop=0.0, **quiet)(colours), colours)
