# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Fitting the head: a tiny set of images, which network is kept, principal directions, and views of images."""

from collections.abc import Callable
from dataclasses import replace
from itertools import chain, repeat

import numpy as np
import pytest
import torch
from pixel_oracles import labelled
from torch.nn import functional

from anomalib_aoissl.pixel_head.head import PixelHead
from anomalib_aoissl.pixel_head.learning import fitting, stages, training
from anomalib_aoissl.pixel_head.learning import labelled as labelled_module
from anomalib_aoissl.pixel_head.learning.labelled import LabelledImage, Reader, View, labelled_views
from anomalib_aoissl.pixel_head.learning.sample import PixelSample
from anomalib_aoissl.pixel_head.learning.training import (
    feature_spread,
    fit_head,
    left_out_maps,
    principal_directions,
    sample_more,
)


@pytest.fixture(autouse=True)
def _short_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "STEPS", 40)
    monkeypatch.setattr(fitting, "BATCH", 256)
    monkeypatch.setattr(labelled_module, "PIXELS", 1000)


def noise_tokens(image: torch.Tensor) -> torch.Tensor:
    """Return tokens that say nothing, the same for the same image."""
    generator = torch.Generator().manual_seed(int(image.sum() * 1000))
    return torch.randn(1, 5, 4, 6, generator=generator)


def brightness_tokens(image: torch.Tensor) -> torch.Tensor:
    return functional.adaptive_avg_pool2d(image.mean(dim=1, keepdim=True), (3, 4)).repeat(1, 2, 1, 1)


def novel(view: View) -> np.ndarray:
    return np.full(len(view.points), 0.5, np.float32)


def reader(read: Callable[[torch.Tensor], torch.Tensor] = noise_tokens, seed: int = 0) -> Reader:
    return Reader(see=lambda seen: seen, tokens=read, novelty=novel, seed=seed)


def fitted(
    images: list[LabelledImage],
    read: Callable[[torch.Tensor], torch.Tensor] = noise_tokens,
    seed: int = 0,
    classes: int = 2,
) -> tuple[PixelHead, PixelSample, np.ndarray]:
    head = PixelHead()
    fit = fit_head(head, images, classes, reader(read, seed))
    return head, fit.sample, fit.sure


def accuracy(head: PixelHead, image: LabelledImage, read: Callable[[torch.Tensor], torch.Tensor]) -> float:
    """Return the mean over the classes of the share of their pixels that are found."""
    with torch.no_grad():
        found = head(image.image, read(image.image))[0].argmax(dim=0)
    return float(np.mean([(found[image.mask == index] == index).float().mean() for index in (0, 1)]))


def choose(monkeypatch: pytest.MonkeyPatch, before: float, after: float) -> None:
    """Have the first network and then the second one have these mean IoU."""
    values = chain([before, after], repeat(after))
    monkeypatch.setattr(training, "mean_iou", lambda *_: next(values))


@pytest.mark.parametrize(
    ("number", "size", "planes", "read"),
    [
        (3, (32, 48), 3, noise_tokens),
        (1, (48, 32), 1, noise_tokens),
        (2, (42, 56), 4, brightness_tokens),
    ],
)
def test_a_mask_by_brightness_is_learnt(
    number: int, size: tuple[int, int], planes: int, read: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    head, sample, sure = fitted(labelled(number, size, planes), read)
    assert head.fitted
    assert head.num_classes == 2
    for image in labelled(2, size, planes, seed=9):
        assert accuracy(head, image, read) > 0.85
    assert len(sample) == len(sure)
    assert 0.5 <= sure.min() <= sure.max() <= 1
    assert sample.basis == head.basis()
    assert set(sample.image_ids) == {10 + order for order in range(number)}
    assert set(sample.device_ids) == {order % 2 for order in range(number)}
    assert np.isfinite(sample.values).all()
    assert sample.context.shape[1] == (12 if head.has_autocontext else 0)


def test_the_same_seed_gives_the_same_head() -> None:
    (one, first, _), (two, second, _), (other, _, _) = (fitted(labelled(2), seed=seed) for seed in (1, 1, 2))
    for name, value in one.state_dict().items():
        assert torch.equal(two.state_dict()[name], value)
    assert np.array_equal(first.values, second.values)
    assert not torch.equal(one.mean, other.mean)


@pytest.mark.parametrize(("before", "after", "kept"), [(0.5, 0.6, True), (0.6, 0.5, False), (0.5, 0.5, False)])
def test_autocontext_is_kept_where_it_pays(
    before: float, after: float, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(monkeypatch, before, after)
    head, sample, _ = fitted(labelled(3))
    assert head.fitted
    assert head.has_autocontext == kept
    assert sample.context.shape == (len(sample), 12 if kept else 0)


def test_classes_that_look_alike_are_taken_for_each_other_in_left_out_images() -> None:
    images = labelled(4)
    for image in images[::2]:
        image.mask[image.mask == 1] = 2  # the same rectangle under another label
    fit = fit_head(PixelHead(), images, 3, reader())
    assert fit.confusion.sum() == pytest.approx(fit.sample.weights.sum())
    shares = fit.confusion / fit.confusion.sum(axis=1, keepdims=True)
    assert shares[1, 2] + shares[2, 1] > 0.6
    assert shares[0, 0] > 0.9
    images[0].mask[images[0].mask == 2] = 1
    assert not fit_head(PixelHead(), images, 3, reader()).confusion.any()  # one image alone shows class 2


def test_a_class_of_one_image_alone_judges_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    images = labelled(3)
    images[1].mask[:, :20] = 2  # which the other images do not show
    choose(monkeypatch, 0.5, 0.6)
    head, sample, sure = fitted(images, classes=3)
    assert not head.has_autocontext
    assert sample.context.shape == (len(sample), 0)
    assert (head.offsets == 0).all()
    assert len(sure) == len(sample)
    images[0].mask[:, :20] = 2
    choose(monkeypatch, 0.5, 0.6)
    assert fitted(images, classes=3)[0].has_autocontext


def test_what_a_head_had_is_overwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    head = PixelHead()
    choose(monkeypatch, 0.5, 0.6)
    fit_head(head, labelled(3), 2, reader())
    assert head.has_autocontext
    choose(monkeypatch, 0.6, 0.5)
    fit_head(head, labelled(2, planes=1), 2, reader())
    assert not head.has_autocontext
    assert len(head.mean) == 39 + 5


def test_how_sure_a_head_is_has_its_offsets(monkeypatch: pytest.MonkeyPatch) -> None:
    offsets = np.array([0.5, -1.5], np.float32)
    told: list[np.ndarray] = []

    def chosen(probabilities: np.ndarray, *_: np.ndarray) -> np.ndarray:
        told.append(probabilities)
        return offsets

    monkeypatch.setattr(training, "class_offsets", chosen)
    head, _, sure = fitted(labelled(2))
    assert head.offsets.tolist() == offsets.tolist()
    scores = torch.from_numpy(told[0]).double().log() + torch.from_numpy(offsets)
    assert np.allclose(sure, scores.softmax(dim=1).amax(dim=1), atol=1e-5)


def test_of_one_fold_alone_there_are_no_offsets_and_no_autocontext() -> None:
    images = labelled(2)
    images[1].mask[:] = 255
    head, sample, _ = fitted(images)
    assert head.fitted
    assert not head.has_autocontext
    assert head.offsets.tolist() == [0, 0]
    assert set(sample.folds.tolist()) == {0}


def test_context_is_of_networks_that_did_not_see_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    # One image's labels are swapped: networks of the others say the opposite of its labels, its own would not.
    choose(monkeypatch, 0.5, 0.6)
    images = labelled(3)
    images[1] = LabelledImage(images[1].image, 1 - images[1].mask, 0, 11)
    _, sample, _ = fitted(images)
    mine = sample.image_ids == 11
    said = sample.context[:, 1] > sample.context[:, 0]
    assert (said[mine] == (sample.labels[mine] == 1)).mean() < 0.5


@pytest.mark.parametrize(("number", "after", "others"), [(3, 0.6, 3), (3, 0.4, 3), (1, 0.6, 2)])
def test_left_out_answers_are_those_of_the_networks_of_the_other_folds(
    number: int, after: float, others: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(monkeypatch, 0.5, after)
    head = PixelHead()
    fit = fit_head(head, labelled(number), 2, reader())
    state = {name: value.clone() for name, value in head.state_dict().items()}
    assert len(fit.others) == others
    alone = {}
    for fold, networks in fit.others.items():
        alone[fold] = PixelHead()
        alone[fold].load_state_dict(state)
        alone[fold].set_networks(*networks)
        assert alone[fold].has_autocontext == (after > 0.5)
    for view in fit.views:
        found = left_out_maps(head, fit, view)
        with torch.no_grad():
            own = head(view.image, view.tokens)
            answers = {fold: one(view.image, view.tokens)[0] for fold, one in alone.items()}
        for fold, answer in answers.items():
            here = torch.from_numpy(view.parts == fold)
            assert torch.equal(found[0][:, here], answer[:, here])
        beyond = torch.from_numpy(view.parts == 255)
        assert not torch.isclose(found[0][:, beyond], own[0][:, beyond], atol=1e-5).all(dim=0).any()
    assert all(torch.equal(value, state[name]) for name, value in head.state_dict().items())


def test_left_out_answers_contradict_labels_that_are_wrong() -> None:
    images = labelled(3)
    images[1] = LabelledImage(images[1].image, 1 - images[1].mask, 0, 11)
    head = PixelHead()
    fit = fit_head(head, images, 2, reader())
    for view in fit.views:
        said = left_out_maps(head, fit, view)[0].argmax(dim=0).numpy()
        right = (said == view.mask)[view.mask != 255].mean()
        assert right < 0.5 if view.source.name == 11 else right > 0.5


def test_of_one_fold_alone_the_head_itself_answers() -> None:
    images = labelled(2)
    images[1].mask[:] = 255
    head = PixelHead()
    fit = fit_head(head, images, 2, reader())
    assert not fit.others
    with torch.no_grad():
        for view in fit.views:
            assert torch.equal(left_out_maps(head, fit, view), head(view.image, view.tokens))


def test_of_what_one_fold_alone_shows_the_head_itself_answers() -> None:
    images = labelled(3)
    images[1].mask[:8] = 2
    head = PixelHead()
    fit = fit_head(head, images, 3, reader())
    shows = [bool((view.mask == 2).any()) for view in fit.views]
    assert 0 < sum(shows) < len(shows)
    for view, shown in zip(fit.views, shows, strict=True):
        with torch.no_grad():
            own = head(view.image, view.tokens)
        assert torch.equal(left_out_maps(head, fit, view), own) == shown


def test_a_state_of_a_fitted_head_loads_into_an_empty_one(monkeypatch: pytest.MonkeyPatch) -> None:
    choose(monkeypatch, 0.5, 0.6)
    head, _, _ = fitted(labelled(3))
    other = PixelHead()
    other.load_state_dict(head.state_dict())
    image = labelled(1, seed=9)[0].image
    with torch.no_grad():
        assert torch.equal(head(image, noise_tokens(image)), other(image, noise_tokens(image)))


@pytest.mark.parametrize("after", [0.6, 0.4])
def test_more_images_are_sampled_for_a_fitted_head(after: float, monkeypatch: pytest.MonkeyPatch) -> None:
    choose(monkeypatch, 0.5, after)
    head, sample, _ = fitted(labelled(3))
    state = {name: value.clone() for name, value in head.state_dict().items()}
    more = labelled(2, seed=4)
    new = sample_more(head, more, reader())
    assert new.basis == sample.basis
    assert new.context.shape == (len(new), sample.context.shape[1])
    assert new.values.shape == (len(new), sample.values.shape[1])
    assert all(torch.equal(value, state[name]) for name, value in head.state_dict().items())
    assert len(sample.joined(new)) == len(sample) + len(new)
    if after > 0.5:  # What the present first network says of the pixels is nearly right.
        said = (new.context[:, 1] > new.context[:, 0]).astype(np.uint8)
        assert (said == new.labels).mean() > 0.85


def test_stored_values_are_standardised_features_of_the_drawn_pixels() -> None:
    images = labelled(2)
    head, sample, _ = fitted(images)
    views = list(labelled_views(images, reader()))
    start = 0
    for view in views:
        part = sample.values[start : start + len(view.points)] * (6 / 127)
        start += len(view.points)
        planes = view.image[0].numpy()[:, view.points[:, 0], view.points[:, 1]].T  # the first features
        expected = (planes - head.mean[:3].numpy()) / head.scale[:3].numpy()
        assert np.allclose(part[:, :3], expected.clip(-6, 6), atol=0.5 * 6 / 127 + 1e-3)
    assert start == len(sample)
    spread = (sample.values * (6 / 127)).std(axis=0)
    assert np.allclose(spread[:3], 1, atol=0.05)


def test_novelty_that_is_not_there_stays_nan() -> None:
    images = labelled(2)

    def only_of_the_first(view: View) -> np.ndarray:
        return np.full(len(view.points), 0.25 if view.source is images[0] else np.nan)

    head = PixelHead()
    fit = fit_head(head, images, 2, replace(reader(), novelty=only_of_the_first))
    sample, sure = fit.sample, fit.sure
    first = sample.image_ids == 10
    assert (sample.novelty[first] == 0.25).all()
    assert np.isnan(sample.novelty[~first]).all()
    assert np.isfinite(sure).all()
    assert all(torch.isfinite(buffer).all() for buffer in head.buffers())


@pytest.mark.parametrize("kept", [2, 5, 128])
def test_directions_are_the_principal_ones_of_standardised_maps(kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "_DIRECTIONS", kept)
    mixed = torch.randn(5, 5) * torch.tensor([1.0, 3, 0.2, 8, 1])
    maps = [torch.einsum("bdhw,de->behw", torch.randn(1, 5, *grid), mixed) + 4 for grid in ((6, 7), (9, 5))]
    directions, centre = principal_directions(maps)
    rows = np.concatenate([one[0].flatten(1).T.double().numpy() for one in maps])
    scale = rows.std(axis=0) + 1e-4
    standardised = (rows - rows.mean(axis=0)) / scale
    _, singular, vectors = np.linalg.svd(standardised, full_matrices=False)
    assert directions.shape == (5, min(kept, 5))
    assert np.allclose(centre, rows.mean(axis=0), atol=1e-4)
    overlap = (directions.double().numpy() * scale[:, None]).T @ vectors.T  # of unit vectors, up to the sign
    assert np.allclose(np.abs(overlap), np.eye(5)[: min(kept, 5)], atol=1e-3)
    spread = ((rows - centre.numpy()) @ directions.numpy()).std(axis=0)
    assert np.allclose(spread, singular[: min(kept, 5)] / len(rows) ** 0.5, atol=1e-3)


def test_directions_are_those_of_scikit_learn() -> None:
    decomposition = pytest.importorskip("sklearn.decomposition")
    maps = [torch.rand(1, 6, 5, 8) for _ in range(3)]
    rows = np.concatenate([one[0].flatten(1).T.double().numpy() for one in maps])
    scale = rows.std(axis=0) + 1e-4
    analysis = decomposition.PCA().fit((rows - rows.mean(axis=0)) / scale)
    directions, _ = principal_directions(maps)
    overlap = (directions.double().numpy() * scale[:, None]).T @ analysis.components_.T
    assert np.allclose(np.abs(overlap), np.eye(6), atol=2e-3)


def test_maps_that_do_not_differ_have_finite_directions() -> None:
    directions, centre = principal_directions([torch.ones(1, 4, 3, 3)])
    assert torch.isfinite(directions).all()
    assert centre.tolist() == [1, 1, 1, 1]


def test_tokens_share_one_scale() -> None:
    values = np.array([[0, 1, 5, 0], [2, 1, 1, 8]], np.float32)
    mean, scale = feature_spread(values, 2)  # the last two are tokens
    assert mean.tolist() == [1, 1, 3, 4]
    together = ((2**2 + 4**2) / 2) ** 0.5
    assert np.allclose(scale, [1.001, 0.001, together + 0.001, together + 0.001])
