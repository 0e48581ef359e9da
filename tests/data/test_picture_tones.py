# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Inverted pictures and exchanged planes are told, other light is not; distances against formulas by hand."""

from collections.abc import Callable

import numpy as np
import pytest

from anomalib_aoissl.data.quality.picture_quality import LabelledQuality
from anomalib_aoissl.data.quality.picture_tones import picture_tones, tone_fault


def scene(seed: int, planes: int = 3) -> np.ndarray:
    """Return a dark ground with bright parts, ``[C, 96, 128]``; the parts are reddish, the ground is bluish."""
    random = np.random.default_rng(seed)
    parts = np.zeros((96, 128), bool)
    for _ in range(6):
        row, column = random.integers(0, 80), random.integers(0, 100)
        parts[row : row + 16, column : column + 28] = True
    ground, part = np.linspace(0.15, 0.3, planes), np.linspace(0.9, 0.5, planes)
    picture = np.where(parts, part[:, None, None], ground[:, None, None])
    return (picture + random.normal(0, 0.01, picture.shape)).clip(0, 1).astype(np.float32)


KNOWN = [picture_tones(scene(seed)) for seed in range(3)]

CHANGED: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "nothing": (lambda planes: planes, ""),
    "a gain": (lambda planes: 0.6 * planes, ""),
    "a gamma": (lambda planes: planes**1.4, ""),
    "a cast": (lambda planes: planes * np.array([0.7, 1, 1.3]).reshape(3, 1, 1), ""),
    "the other cast": (lambda planes: planes * np.array([1.3, 1, 0.7]).reshape(3, 1, 1), ""),
    "noise": (lambda planes: planes + np.random.default_rng(0).normal(0, 0.03, planes.shape), ""),
    "inverted": (lambda planes: 1 - planes, "inverted"),
    "blue first": (lambda planes: planes[::-1], "planes 0 and 2 swapped"),
    "lighting channels exchanged": (lambda planes: planes[[1, 0, 2]], "planes 0 and 1 swapped"),
}


@pytest.mark.parametrize("name", CHANGED)
def test_what_was_done_to_a_picture_is_said(name: str) -> None:
    change, said = CHANGED[name]
    planes = change(scene(9)).clip(0, 1).astype(np.float32)
    assert tone_fault(planes, KNOWN)[0] == said


def test_grey_pictures_have_no_order_of_planes() -> None:
    known = [picture_tones(scene(seed, 1).repeat(3, axis=0)) for seed in range(2)]
    assert tone_fault(scene(9, 1).repeat(3, axis=0), known) == ("", "")


@pytest.mark.parametrize("planes", [1, 2, 4])
def test_any_number_of_planes(planes: int) -> None:
    known = [picture_tones(scene(seed, planes)) for seed in range(2)]
    assert tone_fault(scene(9, planes), known) == ("", "")
    assert tone_fault(1 - scene(9, planes), known)[0] == "inverted"


def test_the_distance_is_the_one_by_hand() -> None:
    """Of two planes: means of the differences of quantiles, of correlations, and half of that of the ratio."""
    pictures = [scene(0, 2), 1 - scene(1, 2)]
    logarithms = [np.log(picture.reshape(2, -1).astype(np.float64) + 0.1) for picture in pictures]
    standardised = [
        (one - one.mean(axis=1, keepdims=True)) / (one.std(axis=1, keepdims=True) + 1e-3) for one in logarithms
    ]
    quantiles = [np.quantile(one, [0.05, 0.95], axis=1).T.ravel() for one in standardised]
    correlations = [(one[0] * one[1]).mean() for one in standardised]
    ratios = [one[0].mean() - one[1].mean() for one in logarithms]
    tones = [np.array(picture_tones(picture)) for picture in pictures]
    differences = np.abs(tones[0] - tones[1])
    assert len(differences) == 2 * 10 + 1 + 1
    np.testing.assert_allclose(20 * differences[[0, 9, 10, 19]], np.abs(quantiles[0] - quantiles[1]))
    assert differences[20] == pytest.approx(abs(correlations[0] - correlations[1]))
    assert differences[21] == pytest.approx(abs(ratios[0] - ratios[1]) / 2)


def test_a_picture_that_is_clipped_is_not_called_inverted_too() -> None:
    known = LabelledQuality.of((str(seed), scene(seed)) for seed in range(3))
    assert known.fault(np.ones_like(scene(9))).startswith("overexposed (")
    assert known.fault(1 - scene(9)).startswith("inverted (tones ")
    assert ";" not in known.fault(1 - scene(9))
