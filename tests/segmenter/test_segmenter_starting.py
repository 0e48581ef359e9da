# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The start of training: which images the head is fitted to, what the decoder gets of each, and what is said."""

import logging
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from segmenter_runs import make_model
from torchvision import tv_tensors
from torchvision.transforms.v2 import Compose, RandomHorizontalFlip, Resize

from anomalib_aoissl import AOISSLSegmenter
from anomalib_aoissl.data.describing.file_format import FileFormat
from anomalib_aoissl.data.items import SegmentationItem
from anomalib_aoissl.segmenter import starting
from anomalib_aoissl.segmenter.examples import Example
from anomalib_aoissl.segmenter.starting import labelled_parts, start_from_head

CLASSES = ("background", "bar", "disc")
SIZE = (32, 48)


class Items:
    """A dataset without files: dark ground, grey bars of class 1, bright discs of class 2."""

    def __init__(self, number: int, size: tuple[int, int] = SIZE) -> None:
        random, (rows, columns) = np.random.default_rng(0), np.indices(size)
        self.images, self.masks = [], []
        for _ in range(number):
            mask, top = np.zeros(size, np.uint8), random.integers(0, size[0] // 3)
            mask[top : top + size[0] // 4, 2:-2] = 1
            mask[(rows - size[0] * 0.75) ** 2 + (columns - random.integers(8, size[1] - 8)) ** 2 < size[0]] = 2
            image = np.array([0.2, 0.5, 0.9])[mask] + random.normal(0, 0.03, (3, *size))
            self.images.append(torch.from_numpy(image.clip(0, 1)).float())
            self.masks.append(torch.from_numpy(mask))
        self.samples = pd.DataFrame({"image_path": [f"{index}.png" for index in range(number)]})
        self.augmentations: Any = None
        self.read: list[int] = []

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> SegmentationItem:
        self.read.append(index)
        image, mask = tv_tensors.Image(self.images[index]), self.masks[index]
        if self.augmentations is not None:
            image, mask = self.augmentations(image, tv_tensors.Mask(mask))
        return SegmentationItem(image=image, gt_mask=None if mask is None else tv_tensors.Mask(mask))


def make_module(tiny_encoder: dict, classes: tuple[str, ...] = CLASSES, **arguments: Any) -> AOISSLSegmenter:
    module = make_model(tiny_encoder, image_size=SIZE, **arguments)
    module.set_dataset(classes, FileFormat())
    module.model.make_decoder(len(classes))
    return module.eval()


def examples_of(module: AOISSLSegmenter, items: Items) -> dict[str, list[Example]]:
    """Return all views by image."""
    examples, _ = start_from_head(module, items)
    return {name: [make() for make in makers] for name, makers in examples.makers.items()}


def test_views_are_what_the_model_sees_with_their_labels_and_tokens(tiny_encoder: dict) -> None:
    module, items = make_module(tiny_encoder), Items(3)
    found = examples_of(module, items)
    assert {name: len(views) for name, views in found.items()} == {"0.png": 3, "1.png": 3, "2.png": 3}
    for index, views in enumerate(found.values()):
        plain = views[0]
        assert torch.equal(plain.mask, items.masks[index])
        seen = module.pre_processor(items.images[index][None])
        torch.testing.assert_close(plain.image[None], seen, atol=1e-5, rtol=1e-4)
        tokens = module.model.standardized(module.model.extract(seen))[0, :64]
        torch.testing.assert_close(plain.tokens, tokens, atol=1e-3, rtol=1e-3)
        for view in views:
            assert view.image.shape == (3, *SIZE)
            assert view.probabilities.shape == (3, *SIZE)
            torch.testing.assert_close(view.probabilities.sum(dim=0), torch.ones(SIZE))
            assert view.probabilities.min() >= 0.02 / 3
            assert view.tokens.shape == (64, 4, 6)
            assert view.mask.shape == SIZE
            assert view.mask.dtype == torch.uint8


def test_what_the_head_says_of_an_image_is_of_networks_that_did_not_see_it(tiny_encoder: dict) -> None:
    """An image with bar and disc swapped: those fitted to the others contradict its labels."""
    items = Items(3)
    items.masks[1] = torch.tensor([0, 2, 1], dtype=torch.uint8)[items.masks[1].long()]
    found = examples_of(make_module(tiny_encoder), items)
    agreed = {}
    for name, views in found.items():
        pairs = [(view.probabilities.argmax(dim=0), view.mask) for view in views]
        agreed[name] = np.mean([(said == mask)[(mask == 1) | (mask == 2)].float().mean() for said, mask in pairs])
    assert agreed["1.png"] < 0.3
    assert agreed["1.png"] < min(agreed["0.png"], agreed["2.png"])


def test_counts_are_the_labelled_pixels(tiny_encoder: dict) -> None:
    items = Items(3)
    items.masks[0][:10] = 255
    _, counts = start_from_head(make_module(tiny_encoder), items)
    labels = torch.cat([mask.flatten() for mask in items.masks])
    assert counts.tolist() == [int((labels == index).sum()) for index in range(3)]


def test_images_beyond_the_most_are_evenly_left_out_of_the_fit_and_still_examples(
    tiny_encoder: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starting, "MOST_IMAGES", 2)
    module, items = make_module(tiny_encoder), Items(5)
    examples, _ = start_from_head(module, items)
    assert items.read == [0, 2]
    assert set(examples.makers) == {f"{index}.png" for index in range(5)}
    assert [len(examples.makers[f"{index}.png"]) for index in (1, 3, 4)] == [1, 1, 1]
    (example,) = (make() for make in examples.makers["3.png"])
    seen = module.pre_processor(items.images[3][None])
    with torch.no_grad():
        head = module.model.head(seen, module.model.extract(seen))[0]
    torch.testing.assert_close(example.image[None], seen, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(example.probabilities, 0.98 * head + 0.02 / 3, atol=1e-4, rtol=1e-3)
    assert torch.equal(example.mask, items.masks[3])
    step = examples.draw([f"{index}.png" for index in range(5)])
    assert step is not None
    assert len(step.images) == 5


def test_images_without_labels_are_left_out(tiny_encoder: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    items = Items(4)
    items.masks[1] = None
    items.masks[2][:] = 255
    examples, _ = start_from_head(make_module(tiny_encoder), items)
    assert set(examples.makers) == {"0.png", "3.png"}
    monkeypatch.setattr(starting, "MOST_IMAGES", 1)  # the others are not fitted to
    examples, _ = start_from_head(make_module(tiny_encoder), items)
    assert set(examples.makers) == {f"{index}.png" for index in range(4)}
    for name in ("1.png", "2.png"):
        (example,) = (make() for make in examples.makers[name])
        assert (example.mask == 255).all()
        assert example.image.isfinite().all()


def test_a_start_is_that_of_its_seed_whatever_was_fitted_before(tiny_encoder: dict) -> None:
    module, again, other = make_module(tiny_encoder), make_module(tiny_encoder), make_module(tiny_encoder, seed=1)
    start_from_head(module, Items(1))
    before = module.model.head.mean.clone()
    for one in (module, again, other):
        start_from_head(one, Items(2))
    assert not torch.equal(module.model.head.mean, before)
    for name, value in again.model.head.state_dict().items():
        assert torch.equal(module.model.head.state_dict()[name], value), name
    assert not torch.equal(module.model.head.mean, other.model.head.mean)


def test_images_are_read_at_the_model_s_size_without_augmentation(tiny_encoder: dict) -> None:
    module, items = make_module(tiny_encoder), Items(1, (64, 96))
    items.augmentations = flip = RandomHorizontalFlip(p=1.0)
    (image,) = labelled_parts(module, items, 0, 1)
    assert items.augmentations is flip
    assert image is not None
    expected = Resize(list(SIZE), antialias=True)(items.images[0][None])
    torch.testing.assert_close(image.image, expected.clamp(0, 1))
    assert torch.equal(image.mask, items.masks[0][1::2, 1::2]) or torch.equal(image.mask, items.masks[0][::2, ::2])


@pytest.mark.parametrize(
    ("augmentation", "said"),
    [(None, False), (Resize(list(SIZE)), False), (Compose([RandomHorizontalFlip(), Resize(list(SIZE))]), True)],
)
def test_augmentations_that_are_not_used_are_named(
    tiny_encoder: dict, augmentation: Any, said: bool, caplog: pytest.LogCaptureFixture
) -> None:
    items = Items(2)
    items.augmentations = augmentation
    with caplog.at_level(logging.WARNING, "anomalib_aoissl"):
        start_from_head(make_module(tiny_encoder), items)
    assert "fitted to shows" not in caplog.text
    assert ("augmentations of training images are not used" in caplog.text) == said


@pytest.mark.parametrize(("kept", "shown"), [([1], r"\['bar'\]"), ([], "no class")])
def test_one_class_is_nothing_to_tell_apart(tiny_encoder: dict, kept: list[int], shown: str) -> None:
    items = Items(2)
    for mask in items.masks:
        mask[~torch.isin(mask, torch.tensor([*kept, 99]))] = 255
    message = (
        rf"The labelled images show {shown}; .*Label an image that shows another one of .*'background', 'bar', 'disc'"
    )
    with pytest.raises(ValueError, match=message):
        start_from_head(make_module(tiny_encoder), items)


def test_a_class_that_no_image_shows_is_named(tiny_encoder: dict, caplog: pytest.LogCaptureFixture) -> None:
    module, items = make_module(tiny_encoder, (*CLASSES, "crack")), Items(2)
    with caplog.at_level(logging.WARNING, "anomalib_aoissl"):
        start_from_head(module, items)
    said = caplog.records[0].getMessage()
    assert said.startswith("No image that the pixel head is fitted to shows ['crack']")
    assert "bar" not in said


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_images_that_are_not_finite_are_named(
    tiny_encoder: dict, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, items = make_module(tiny_encoder), Items(3)
    items.images[1][0, 4, 4] = value
    message = "^1.png: the image holds NaN or infinite values. Write it again, or leave it out"
    with pytest.raises(ValueError, match=message):
        start_from_head(module, items)
    monkeypatch.setattr(starting, "MOST_IMAGES", 1)  # also where it is read later
    examples, _ = start_from_head(module, items)
    with pytest.raises(ValueError, match=message):
        examples.draw(["0.png", "1.png"])
