# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The sample of labelled pixels: storing, choosing, joining; and the mean IoU against a table by hand."""

import logging

import numpy as np
import pytest
from pixel_oracles import sample_with, toy_sample

from anomalib_aoissl.pixel_head.learning.sample import (
    KINDS,
    class_offsets,
    classes_of_one_fold,
    joined_pixels,
    mean_iou,
    sample_of,
)
from anomalib_aoissl.pixel_head.stored import STEP, stored_values


def test_stored_values_come_back_within_half_a_step() -> None:
    random = np.random.default_rng(0)
    mean, scale = random.normal(size=5).astype(np.float32), random.uniform(0.1, 9, 5).astype(np.float32)
    values = (mean + scale * random.uniform(-5.9, 5.9, (400, 5))).astype(np.float32)
    stored = stored_values(values, mean, scale)
    assert stored.dtype == np.int8
    back = stored * (6 / 127) * scale + mean
    assert (np.abs(back - values) <= (0.5 * 6 / 127 + 1e-4) * scale).all()


def test_values_beyond_six_deviations_are_cut() -> None:
    values = np.array([[-100.0, -6.1, 6.0, 6.1, 1e9]], np.float32).T
    stored = stored_values(values, np.float32(0), np.float32(1))
    assert stored[:, 0].tolist() == [-127, -127, 127, 127, 127]
    assert STEP == pytest.approx(6 / 127)


def test_sample_has_its_types_whatever_it_is_made_of() -> None:
    sample = toy_sample(6, 2, context=3)
    wide = {name: array.astype(np.float64) for name, array in sample.arrays.items()}
    made = sample_of(wide, "basis")
    assert made.basis == "basis"
    for name, kind in KINDS.items():
        assert made.arrays[name].dtype == np.dtype(kind)
        assert np.array_equal(made.arrays[name], sample.arrays[name], equal_nan=name == "novelty")


def test_length_and_size() -> None:
    sample = toy_sample(10, 2, context=12)
    assert len(sample) == 10
    assert sample.megabytes == pytest.approx(10 * (8 + 1 + 4 + 4 + 4 + 4 + 1 + 12) / 1e6)


def test_chosen_pixels_keep_all_that_belongs_to_them() -> None:
    sample = toy_sample(10, 2, context=3)
    which = np.array([7, 2, 2])
    for name, array in sample.chosen(which).arrays.items():
        assert np.array_equal(array, [sample.arrays[name][index] for index in which], equal_nan=name == "novelty")
    assert np.array_equal(sample.chosen(sample.labels == 1).values, sample.values[sample.labels == 1])
    assert sample.chosen(which).basis == sample.basis


def test_every_second_pixel_stands_for_two() -> None:
    sample = toy_sample(7, 2)
    taken = sample.every(2)
    assert np.array_equal(taken.values, sample.values[::2])
    np.testing.assert_allclose(taken.weights, 2 * sample.weights[::2])
    assert np.array_equal(sample.every(1).weights, sample.weights)


def test_renumbered_ids_are_looked_up() -> None:
    sample = sample_with(np.zeros((3, 1)), np.array([0, 1, 2]), np.array([2, 0, 1]))
    new = sample.renumbered(np.array([4]), np.array([10, 11, 12]))
    assert new.labels.tolist() == [0, 1, 2]
    assert new.image_ids.tolist() == [12, 10, 11]
    assert new.device_ids.tolist() == [4, 4, 4]
    assert new.image_ids.dtype == new.device_ids.dtype == np.int32


def test_relabelled_pixels_keep_each_probability_with_its_class() -> None:
    # Two classes: probabilities, and those blurred at one radius; they become the classes 3 and 1 of four.
    sample = sample_with(np.zeros((2, 1)), np.array([0, 1]), np.zeros(2), context=4)
    new = sample.relabelled([3, 1], 4)
    assert new.labels.tolist() == [3, 1]
    for found, old in zip(new.context, sample.context, strict=True):
        assert found.tolist() == [0, old[1], 0, old[0], 0, old[3], 0, old[2]]
    assert new.context.dtype == np.int8
    empty = sample.chosen(np.arange(0)).relabelled([3, 1], 4)
    assert empty.context.shape == (0, 8)


def test_joined_pixels_follow_ours() -> None:
    ours, theirs = toy_sample(4, 2, context=12), toy_sample(3, 2, context=12, seed=1)
    joined = joined_pixels(ours, theirs)
    for name in KINDS:
        expected = [*ours.arrays[name], *theirs.arrays[name]]
        assert np.array_equal(joined.arrays[name], expected, equal_nan=name == "novelty")


def test_context_of_other_columns_is_0() -> None:
    assert joined_pixels(toy_sample(4, 2), toy_sample(3, 2, context=12)).context.shape == (7, 0)
    joined = joined_pixels(toy_sample(4, 2, context=12), toy_sample(3, 2))
    assert joined.context.shape == (7, 12)
    assert not joined.context[4:].any()


def test_pixels_of_another_head_are_left_out_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    ours = toy_sample(4, 2, context=12)
    theirs = sample_of(toy_sample(3, 2, context=12).arrays, "another")
    with caplog.at_level(logging.WARNING):
        joined = joined_pixels(ours, theirs)
    assert "3 labelled pixels" in caplog.text
    for name, array in ours.arrays.items():
        assert np.array_equal(joined.arrays[name], array, equal_nan=name == "novelty")


def test_mean_iou_is_that_of_a_table_by_hand() -> None:
    labels = np.array([0, 0, 1, 1, 2], np.uint8)
    predicted = np.array([0, 1, 1, 1, 0])
    weights = np.array([4.0, 2.0, 1.0, 1.0, 3.0], np.float32)
    # Class 0: 4 of 4 + 2 + 3; class 1: 2 of 2 + 2; class 2: 0 of 3; class 3 does not occur.
    assert mean_iou(labels, predicted, weights, 4) == pytest.approx((4 / 9 + 2 / 4 + 0) / 3)


def test_mean_iou_of_many_classes_does_not_overflow_their_type() -> None:
    labels = np.arange(200, dtype=np.uint8)
    assert mean_iou(labels, labels.astype(np.int64), np.ones(200), 200) == 1.0


def test_mean_iou_is_that_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(0)
    labels, weights = random.integers(0, 5, 300).astype(np.uint8), random.uniform(0.1, 9, 300)
    predicted = np.where(random.random(300) < 0.6, labels, random.integers(0, 5, 300)).astype(np.int64)
    expected = metrics.jaccard_score(labels, predicted, average="macro", sample_weight=weights)
    assert mean_iou(labels, predicted, weights, 7) == pytest.approx(expected)


def drawn_too_often() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return probabilities of a rare class 1, drawn as often as the rest, so that it is found too often."""
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1], 1000).astype(np.uint8)
    scores = np.where(labels, 1, -1) + random.normal(0, 1.2, 2000)
    probabilities = 1 / (1 + np.exp(-np.stack([-scores, scores], axis=1)))
    return probabilities, labels, np.where(labels, 1.0, 30.0)


def test_offsets_give_the_largest_mean_iou_of_all_differences() -> None:
    probabilities, labels, weights = drawn_too_often()
    offsets = class_offsets(probabilities, labels, weights)
    assert np.abs(offsets).max() <= 2

    def value(difference: float) -> float:
        predicted = (np.log(probabilities[:, 1]) + difference > np.log(probabilities[:, 0])).astype(int)
        hits = [(weights * (predicted == index) * (labels == index)).sum() for index in (0, 1)]
        unions = [(weights * ((predicted == index) | (labels == index))).sum() for index in (0, 1)]
        return (hits[0] / unions[0] + hits[1] / unions[1]) / 2

    found = offsets[1] - offsets[0]
    assert found < 0
    assert value(found) > value(0) + 0.02
    assert value(found) >= max(value(difference) for difference in np.arange(-2, 2.01, 0.25)) - 1e-4


def test_offsets_that_bring_nothing_are_0() -> None:
    labels = np.array([0, 1, 2], np.uint8)
    assert class_offsets(np.eye(3), labels, np.ones(3)).tolist() == [0, 0, 0]


def test_classes_of_one_fold_alone_are_found() -> None:
    labels, folds = np.array([0, 0, 1, 1, 1, 2, 2, 5]), np.array([0, 1, 2, 2, 2, 2, 0, 1])
    assert classes_of_one_fold(sample_with(np.zeros((8, 3)), labels, folds)) == [1, 5]
