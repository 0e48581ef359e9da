# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Measures of a picture against scipy, and what is said of pictures that are unlike the labelled ones."""

import json
from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from anomalib_aoissl.data.quality import picture_quality as quality
from anomalib_aoissl.data.quality.picture_quality import LabelledQuality
from anomalib_aoissl.data.quality.picture_quality import picture_quality as measured


def drawn(seed: int, size: tuple[int, int] = (96, 128), planes: int = 3) -> np.ndarray:
    """Return planes of blocks with a little noise, none of it black or white."""
    random = np.random.default_rng(seed)
    blocks = random.uniform(0.2, 0.8, (planes, size[0] // 16, size[1] // 16))
    picture = blocks.repeat(16, axis=1).repeat(16, axis=2) + random.normal(0, 0.01, (planes, *size))
    return picture.clip(0.05, 0.95).astype(np.float32)


def labelled(*pictures: np.ndarray, size: tuple[int, int] | None = None) -> LabelledQuality:
    """Return the quality of pictures that are named by their places."""
    return LabelledQuality.of(((str(index), planes) for index, planes in enumerate(pictures)), size)


def blurred(planes: np.ndarray, sigma: float | tuple[float, float]) -> np.ndarray:
    return np.stack([gaussian_filter(plane, sigma, mode="nearest") for plane in planes])


def test_the_measures_are_those_of_scipy() -> None:
    planes = drawn(0)
    planes[0, :24], planes[1, :, :32] = 0, 1
    found = measured(planes)
    np.testing.assert_allclose(found.contrast, planes.std(axis=(1, 2)), rtol=1e-5)
    np.testing.assert_allclose(found.black, [0.25, 0, 0])
    np.testing.assert_allclose(found.white, [0, 0.25, 0])
    small = planes.reshape(3, 24, 4, 32, 4).mean(axis=(2, 4))
    for sharpness, outer in ((found.across, (1.0, 2.5)), (found.down, (2.5, 1.0))):
        fine = blurred(planes, 1.0) - blurred(planes, outer)
        coarse = blurred(small, 1.0) - blurred(small, outer)
        ratio = np.sqrt((fine**2).mean(axis=(1, 2)) / (coarse**2).mean(axis=(1, 2)))
        np.testing.assert_allclose(sharpness, ratio, rtol=0.01)


def test_the_same_picture_has_equal_measures_and_another_has_not() -> None:
    again = labelled(drawn(0), drawn(1)).with_picture("again", drawn(0) + np.float32(1e-6))
    assert again.equals_of("again") == ["0"]
    assert again.equals_of("1") == []


def test_a_large_picture_is_measured_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    planes = drawn(1, (512, 128))
    whole = measured(planes)
    monkeypatch.setattr(quality, "_ROWS", 128 * 100)
    parts = measured(planes)
    np.testing.assert_allclose(parts.contrast, whole.contrast, rtol=1e-6)
    np.testing.assert_allclose(parts.across, whole.across, rtol=0.1)
    np.testing.assert_allclose(parts.down, whole.down, rtol=0.1)


def test_a_picture_is_measured_at_the_models_size() -> None:
    planes, size = drawn(2), (48, 64)
    small = np.stack([cv2.resize(plane, size[::-1], interpolation=cv2.INTER_AREA) for plane in planes])
    assert replace(measured(planes, size), tones=(), shape=()) == replace(measured(small), tones=(), shape=())
    assert labelled(planes, size=size).fault(blurred(planes, 8)).startswith("blurred")


LIGHTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "a gain": lambda planes: 0.6 * planes,
    "a gamma": lambda planes: planes**1.4,
    "a cast": lambda planes: planes * np.array([0.85, 1, 1.15]).reshape(3, 1, 1).clip(0, 1),
    "noise": lambda planes: planes + np.random.default_rng(0).normal(0, 0.03, planes.shape),
    "a little blur": lambda planes: blurred(planes, 1),
}


@pytest.mark.parametrize("light", LIGHTS)
def test_another_light_is_no_fault(light: str) -> None:
    known = labelled(*(drawn(seed) for seed in range(3)))
    assert known.fault(LIGHTS[light](drawn(9)).astype(np.float32)) == ""


FAULTS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "blur": (lambda planes: blurred(planes, 5), "blurred (sharpness 0.1"),
    "motion along rows": (lambda planes: blurred(planes, (0, 7)), "blurred across (sharpness 0."),
    "motion along columns": (lambda planes: blurred(planes, (7, 0)), "blurred down (sharpness 0."),
    "black": (
        lambda planes: 0 * planes,
        "underexposed (100% of the pixels are black, at most 0% of labelled pictures)",
    ),
    "white": (lambda planes: (9 * planes).clip(0, 1), "overexposed ("),
    "even": (lambda planes: 0.5 + 0 * planes, "dark or empty (contrast 0.000, at least 0.1"),
    "one lamp": (lambda planes: planes * np.array([1, 0, 1]).reshape(3, 1, 1), "underexposed in plane 1 (100%"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_wrong_is_said(name: str) -> None:
    change, said = FAULTS[name]
    known = labelled(*(drawn(seed) for seed in range(3)))
    fault = known.fault(change(drawn(9)).astype(np.float32))
    assert fault.startswith(said)
    assert ";" not in fault  # one fault, not one of each plane


def test_faults_of_two_kinds_are_both_said() -> None:
    planes = drawn(9)
    planes[0], planes[2] = 0, 1
    fault = labelled(drawn(0)).fault(planes)
    assert [part.partition(" (")[0] for part in fault.split("; ")] == [
        "underexposed in plane 0",
        "overexposed in plane 2",
    ]


def test_labelled_pictures_that_differ_in_sharpness_allow_more() -> None:
    sharp, soft, softer = drawn(0), blurred(drawn(1), 2), blurred(drawn(2), 3.5)
    lowest = [measured(planes).across[0] for planes in (sharp, soft, softer)]
    lower = quality.SHARPNESS_LEFT * lowest[1] * quality.SHARPNESS_DIFFERS * lowest[1] / lowest[0]
    assert quality.SHARPNESS_LEFT * lowest[0] > lowest[2] > lower
    assert labelled(sharp).fault(softer)
    assert not labelled(sharp, soft).fault(softer)


def test_where_the_ground_is_black_there_may_be_any_share_of_it() -> None:
    """Few parts on a black ground: pictures differ in how much of it they show."""
    planes, fewer = drawn(0), drawn(1)
    planes[:, :60], fewer[:, :90] = 0, 0
    assert labelled(planes).fault(fewer) == ""
    assert labelled(planes).fault(0 * planes).startswith("dark or empty")


def test_a_lamp_that_is_off_may_be_darker_still_and_not_be_lit() -> None:
    dark = drawn(0)
    dark[1] = np.random.default_rng(0).uniform(0, 0.004, dark[1].shape)
    dead = dark.copy()
    dead[1] = 0
    assert labelled(dark).fault(dead) == ""
    assert labelled(dark).fault(drawn(1)).startswith("lit in plane 1 (contrast 0.1")


def test_what_an_earlier_model_says_is_taken() -> None:
    known = labelled(drawn(0), size=(96, 128))
    content = known.to_dict()
    content["pictures"] = {name: measures[:5] for name, measures in content["pictures"].items()}
    earlier = LabelledQuality.from_dict(content)
    assert earlier.fault(blurred(drawn(0), 5)).startswith("blurred")
    assert earlier.fault(1 - drawn(0)) == earlier.fault(drawn(9, (128, 96))) == ""


def test_a_picture_of_other_proportions_is_stretched() -> None:
    known = labelled(drawn(0, (96, 128)), drawn(1, (128, 160)), size=(96, 128))
    assert known.fault(drawn(9, (112, 160))) == ""
    assert known.fault(drawn(9, (128, 96))) == (
        "stretched (128x96 px, height x width, and 128x160 in labelled pictures: parts are 1.7 times as wide)"
    )
    assert labelled(drawn(0, (96, 128))).fault(drawn(9, (128, 96))) == ""  # tiles are not resized


def test_pictures_come_and_go_and_travel() -> None:
    first, second = drawn(0), blurred(drawn(1), 2) * 0.3
    both = labelled(first, size=(96, 128)).with_picture("1", second)
    assert both == labelled(first, second, size=(96, 128))
    assert LabelledQuality.from_dict(json.loads(json.dumps(both.to_dict()))) == both
    assert LabelledQuality.from_dict(labelled(first).to_dict()).size is None
    assert both.among(["0", "another"]) == labelled(first, size=(96, 128))
    assert both.among(["another"]) is None
