# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Fitting the networks to samples: folds, left-out images, new classes, and going on from present networks."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pixel_oracles import dense, random_network, sample_with, toy_sample

from anomalib_aoissl.pixel_head.learning import stages
from anomalib_aoissl.pixel_head.learning.sample import PixelSample
from anomalib_aoissl.pixel_head.learning.stages import (
    Stages,
    each_unseen,
    first_probabilities,
    left_out_probabilities,
    refitted,
    second_inputs,
    second_probabilities,
    with_classes,
)

FINE, FEATURES, TOKENS, RADII = 3, 8, 2, 5


@pytest.fixture(autouse=True)
def _short_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "STEPS", 60)
    monkeypatch.setattr(stages, "REFIT_STEPS", 200)


def networks(classes: int, *, second: bool) -> Stages:
    """Return random networks, with or without autocontext."""
    inputs = FEATURES + classes * (1 + RADII)
    later = random_network((inputs, 32, 16, classes), seed=1) if second else ()
    return Stages(random_network((FEATURES, 32, 16, classes)), later, np.linspace(-1, 2, classes), FINE, TOKENS)


def right(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of pixels whose likeliest class is theirs."""
    return float((probabilities.argmax(axis=1) == labels).mean())


def test_probabilities_are_those_of_linear_layers_at_the_features() -> None:
    sample, layout = toy_sample(50, 3, context=18), networks(3, second=True)
    values, context = sample.values * (6 / 127), sample.context * (6 / 127)
    expected = dense(layout.first, values).softmax(dim=1)
    assert np.allclose(first_probabilities(layout.first, sample), expected, atol=1e-5)
    inputs = np.concatenate([values[:, :3], context[:, :3], values[:, 3:], context[:, 3:]], axis=1)
    expected = dense(layout.second, inputs).softmax(dim=1)
    assert np.allclose(second_probabilities(layout.second, FINE, sample), expected, atol=1e-5)
    assert layout.classes == 3


def test_inputs_of_the_second_network_have_probabilities_after_the_fine_features() -> None:
    sample = sample_with(np.array([[1, 2, 3, 4]]), np.zeros(1), np.zeros(1), context=6)
    a, b, *blurred = sample.context[0]
    assert second_inputs(sample, 2, 3).tolist() == [[1, 2, 3, a, b, 4, *blurred]]


def test_each_pixel_is_told_by_the_network_of_its_fold() -> None:
    folds = np.array([2, 0, 0, 5, 5, 2, 0])
    sample = sample_with(np.arange(7)[:, None], np.zeros(7), folds)

    def network(number: int, part: PixelSample) -> np.ndarray:
        return np.stack([part.values[:, 0], np.full(len(part), number)], axis=1)

    result = each_unseen(sample, [lambda part, number=number: network(number, part) for number in (10, 11, 12)])
    assert result[:, 0].tolist() == list(range(7))  # in the order of the pixels
    assert result[:, 1].tolist() == [11, 10, 10, 12, 12, 11, 10]


def test_as_many_networks_as_folds_are_asked_for() -> None:
    sample = sample_with(np.zeros((2, 1)), np.zeros(2), np.array([1, 2]))
    with pytest.raises(ValueError, match="zip"):
        each_unseen(sample, [lambda part: np.zeros((len(part), 2))] * 3)


@pytest.mark.parametrize("autocontext", [False, True])
def test_left_out_images_are_told_by_networks_that_did_not_see_them(autocontext: bool) -> None:
    sample = toy_sample(900, 2, context=12 if autocontext else 0)
    if autocontext:
        sample = replace(sample, context=np.zeros_like(sample.context))
    wrong = sample.image_ids == 1  # the labels of one image, a fold, are swapped
    sample = replace(sample, labels=np.where(wrong, 1 - sample.labels, sample.labels).astype(np.uint8))
    found = left_out_probabilities(networks(2, second=autocontext), sample)
    assert np.allclose(found.sum(axis=1), 1, atol=1e-5)
    assert right(found[wrong], sample.labels[wrong]) < 0.1


def test_one_image_alone_is_told_by_the_present_networks() -> None:
    sample = toy_sample(50, 2, images=1, context=12)
    layout = networks(2, second=False)
    expected = dense(layout.first, sample.values * (6 / 127)) + torch.from_numpy(layout.offsets)
    assert np.allclose(left_out_probabilities(layout, sample), expected.softmax(dim=1), atol=1e-5)
    layout = networks(2, second=True)
    inputs = second_inputs(sample, 2, FINE) * (6 / 127)
    expected = dense(layout.second, inputs) + torch.from_numpy(layout.offsets)
    assert np.allclose(left_out_probabilities(layout, sample), expected.softmax(dim=1), atol=1e-5)


@pytest.mark.parametrize("autocontext", [False, True])
def test_refitted_networks_tell_classes_apart_and_new_ones_too(autocontext: bool) -> None:
    present, sample = networks(2, second=autocontext), toy_sample(900, 3, context=18)
    before = [layer.copy() for layer in (*present.first, *present.second)]
    found = refitted(present, sample, 3)
    assert found.classes == 3
    assert right(first_probabilities(found.first, sample), sample.labels) > 0.95
    assert bool(found.second) == autocontext
    if autocontext:
        assert right(second_probabilities(found.second, FINE, sample), sample.labels) > 0.95
    assert np.array_equal(found.offsets, [*present.offsets, 0])
    # The present ones stay as they were.
    assert all(np.array_equal(*pair) for pair in zip(before, (*present.first, *present.second), strict=True))


def test_refitted_goes_on_from_the_present_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "REFIT_STEPS", 1)
    present = networks(3, second=True)
    found = refitted(present, toy_sample(50, 3, context=18), 3)
    pairs = zip((*present.first, *present.second), (*found.first, *found.second), strict=True)
    for old, new in pairs:
        assert 0 < np.abs(new - old).max() < 2e-4  # the first step moves by a rate of 1e-4 at most


def test_refitted_is_that_of_its_seed() -> None:
    sample = toy_sample(100, 2)
    fits = [refitted(networks(2, second=False), sample, 2, seed) for seed in (1, 1, 2)]
    assert np.array_equal(fits[0].first[0], fits[1].first[0])
    assert not np.array_equal(fits[0].first[0], fits[2].first[0])


def test_as_many_classes_as_before_change_nothing() -> None:
    present = networks(2, second=True)
    assert with_classes(present, 2) is present


def test_new_classes_leave_the_scores_of_the_old_ones_and_are_unlikely() -> None:
    present, values = networks(2, second=False), np.random.default_rng(0).normal(size=(40, FEATURES))
    grown = with_classes(present, 5)
    assert grown.classes == 5
    assert grown.second == ()
    assert np.array_equal(grown.first[-2][:, :2], present.first[-2])
    assert np.array_equal(grown.offsets, [*present.offsets, 0, 0, 0])
    assert all(layer.dtype == np.float32 for layer in grown.first)
    old, new = dense(present.first, values), dense(grown.first, values)
    assert np.allclose(old, new[:, :2], atol=1e-12)
    assert new.softmax(dim=1)[:, 2:].sum(dim=1).max() < 0.1


def test_new_classes_leave_the_scores_of_the_second_network_whatever_their_probabilities_are() -> None:
    present, random = networks(2, second=True), np.random.default_rng(0)
    grown = with_classes(present, 3)
    fine, coarse = random.normal(size=(40, FINE)), random.normal(size=(40, FEATURES - FINE))
    context = random.normal(size=(40, 1 + RADII, 3))  # probabilities, and at each radius, of 3 classes
    known = context[:, :, :2]
    old = dense(present.second, np.concatenate([fine, known[:, 0], coarse, known[:, 1:].reshape(40, -1)], axis=1))
    new = dense(grown.second, np.concatenate([fine, context[:, 0], coarse, context[:, 1:].reshape(40, -1)], axis=1))
    assert np.allclose(old, new[:, :2], atol=1e-12)
    assert new.softmax(dim=1)[:, 2].max() < 0.1
    assert np.array_equal(grown.first[-2][:, :2], present.first[-2])
