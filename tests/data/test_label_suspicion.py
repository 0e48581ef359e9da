# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Masks that look wrong: shifted, mirrored, inverted ones are the most suspicious, with their reason."""

from pathlib import Path

import numpy as np
import pytest

from anomalib_aoissl.data.labels.suspicion import MaskSuspicion, look_at, ranked


def scene(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return planes ``[1, H, W]`` and the mask of bright boxes on a dark, noisy ground."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((120, 160), dtype=np.uint8)
    for index in range(3):
        top, left = int(rng.integers(15, 80)), 15 + 45 * index
        mask[top : top + int(rng.integers(8, 20)), left : left + int(rng.integers(15, 35))] = 1 + index % 2
    picture = 0.2 + 0.5 * (mask > 0) + rng.normal(0, 0.03, mask.shape)
    return np.clip(picture, 0, 1)[None].astype(np.float32), mask


def evidence(seed: int, change: object = None) -> MaskSuspicion:
    planes, mask = scene(seed)
    return look_at(Path(f"u{seed}.png"), planes, mask if change is None else change(mask))  # type: ignore[operator]


def test_a_right_mask_fits_best_where_it_is() -> None:
    assert max(evidence(seed).suspicion for seed in range(8)) < 0.85


@pytest.mark.parametrize(
    ("down", "right", "words"), [(0, -7, "7 px right"), (9, 0, "9 px up"), (-6, 8, "8 px left and 6")]
)
def test_a_shifted_mask_is_found_with_its_shift(down: int, right: int, words: str) -> None:
    found = evidence(1, lambda mask: np.roll(mask, (down, right), (0, 1)))
    assert found.suspicion > 1.3
    assert words in found.reason


@pytest.mark.parametrize(
    ("axes", "words"), [(1, "mirrored left to right"), (0, "mirrored top to bottom"), ((0, 1), "180")]
)
def test_a_mirrored_mask_is_found(axes: object, words: str) -> None:
    found = evidence(2, lambda mask: np.flip(mask, axes))  # type: ignore[call-overload]
    assert found.suspicion > 1.3
    assert words in found.reason


def test_an_inverted_mask_is_found_among_others() -> None:
    found = [evidence(seed) for seed in range(5)]
    found.append(evidence(7, lambda mask: np.where(mask > 0, 0, 1).astype(np.uint8)))
    first, second = ranked(found)[:2]
    assert first.path.name == "u7.png"
    assert "inverted" in first.reason
    assert first.suspicion > 1.5 > 1 > second.suspicion


def test_a_mask_is_remembered_and_an_empty_one_is_not_suspicious() -> None:
    _, mask = scene(3)
    np.testing.assert_array_equal(evidence(3).mask(), mask)
    assert evidence(3, np.zeros_like).suspicion == 0
    assert evidence(3, lambda mask: np.full_like(mask, 255)).suspicion == 0


def test_a_large_picture_says_its_shift_in_its_own_pixels() -> None:
    planes, mask = scene(1)
    large = np.kron(mask, np.ones((12, 12), np.uint8))
    moved = np.roll(large, 48, 1)
    found = look_at(Path("a.png"), np.kron(planes, np.ones((1, 12, 12), np.float32)), moved)
    assert int(found.reason.split()[2]) == pytest.approx(48, abs=3)  # of 1920 px, looked at with 640
    assert "left" in found.reason
