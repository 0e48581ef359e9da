# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Views of a labelled image from which pixels are drawn: turned, mirrored, and under other lights; without torch."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from anomalib_aoissl.data.indices import IGNORE_INDEX

_SYMMETRIES = ((0, False), (2, True), (1, False), (3, True), (0, True), (2, False), (1, True), (3, False))
"""Quarter turns, and whether mirrored afterwards; the first are as different as can be."""

_BLUR, _NOISE = (0.5, 1.5), 0.04
"""Range of the blur's width, px, and the largest standard deviation of the noise."""

_TONE, _FIELD = 0.4, 0.3
"""Of a plane alone: the largest change of its gamma, as a power of two, and of the logarithm of its light across it."""

_VIEWS = ((1, 8), (5, 6), (24, 4))
"""Labelled images up to which each is seen in so many views; of more, once."""


@dataclass(frozen=True)
class Variation:
    """How views of a labelled image differ from it.

    Attributes:
        turned: Whether they are turned and mirrored.
        lit: Whether some are under other lights. Without, these are blurred or noisy alone.
    """

    turned: bool = True
    lit: bool = True


EVERY_WAY = Variation()
"""Turned, mirrored and under other lights."""


def views_of(order: int, images: int) -> list[int]:
    """Return the numbers of the views in which an image, by its number, is seen among so many labelled ones.

    Where there is one of each, the next image has another, so that all turns and lights occur.
    """
    number = next((views for most, views in _VIEWS if images <= most), 1)
    first = order if number == 1 else 0
    return [(first + index) % len(_SYMMETRIES) for index in range(number)]


def view(
    planes: np.ndarray, mask: np.ndarray, index: int, random: np.random.Generator, varied: Variation = EVERY_WAY
) -> tuple[np.ndarray, np.ndarray]:
    """Return a view of an image ``[C, H, W]`` in [0, 1] and its mask ``[H, W]``, of the same size; 0 is as they are.

    Every second one is under a drawn light, and these are blurred and noisy in turn.
    """
    image, labels = symmetric_view(planes, mask, index, varied)
    return (drawn_light(image, random, index % 4 == 1, varied) if index % 2 else image), labels


def view_light(
    planes: np.ndarray, index: int, random: np.random.Generator, varied: Variation = EVERY_WAY
) -> np.ndarray:
    """Return pixels of a picture ``[C, h, w]`` under the light that `view` draws for a tile of it, without blur."""
    return np.clip(_lit(planes, random), 0, 1) if index % 2 and varied.lit else planes


def symmetric_view(
    planes: np.ndarray, mask: np.ndarray, index: int, varied: Variation = EVERY_WAY
) -> tuple[np.ndarray, np.ndarray]:
    """Return an image ``[C, H, W]`` and its mask ``[H, W]`` turned and mirrored, at the same size; 0 is as they are.

    A view that is turned by 90 degrees is cut to the size; what it does not cover shows it mirrored, and is ignored in
    the mask (255).
    """
    turns, mirrored = _SYMMETRIES[index % len(_SYMMETRIES) if varied.turned else 0]
    turned = [np.rot90(part, turns, (-2, -1)) for part in (planes, mask[None])]
    image, labels = (part[..., ::-1] if mirrored else part for part in turned)
    padded, cut = _to_size(labels.shape[-2:], mask.shape)
    image, labels = (part[..., cut[0], cut[1]] for part in (image, labels))
    image = np.pad(image, ((0, 0), *padded), mode="symmetric")
    labels = np.pad(labels, ((0, 0), *padded), constant_values=IGNORE_INDEX)
    return np.ascontiguousarray(image), np.ascontiguousarray(labels[0])


def _to_size(have: tuple[int, ...], wanted: tuple[int, ...]) -> tuple[list[tuple[int, int]], list[slice]]:
    """Return what to add at each side, and what to keep, so that the middle has the (height, width) wanted."""
    missing = [max(new - old, 0) for old, new in zip(have, wanted, strict=True)]
    surplus = [max(old - new, 0) // 2 for old, new in zip(have, wanted, strict=True)]
    pads = [(number // 2, number - number // 2) for number in missing]
    return pads, [slice(first, first + new) for first, new in zip(surplus, wanted, strict=True)]


def drawn_light(
    planes: np.ndarray, random: np.random.Generator, blurred: bool, varied: Variation = EVERY_WAY
) -> np.ndarray:
    """Return an image ``[C, H, W]`` in [0, 1] with drawn gamma, gain, cast and uneven light, and blur or noise.

    Where views are not lit, with blur or noise alone.
    """
    lit = _lit(planes, random) if varied.lit else planes.astype(np.float32)
    if blurred:
        sigma = random.uniform(*_BLUR)
        return np.clip(np.stack([cv2.GaussianBlur(plane, (0, 0), sigma) for plane in lit]), 0, 1)
    lit += random.standard_normal(lit.shape, dtype=np.float32) * np.float32(random.uniform(0, _NOISE))
    return np.clip(lit, 0, 1)


def _lit(planes: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return an image ``[C, H, W]`` with drawn gamma and gain, others of each plane, and light that falls off."""
    each = len(planes), 1, 1
    gamma = 2 ** (random.uniform(-0.6, 0.6) + random.uniform(-_TONE, _TONE, each))
    gain = 2 ** (random.uniform(-0.8, 0.8) + random.uniform(-0.6, 0.6, each))
    lit: np.ndarray = (np.maximum(planes, 1e-4) ** gamma * gain).astype(np.float32)
    return lit * _uneven(planes.shape, random)


def _uneven(shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    """Return factors ``[C, H, W]`` of light that changes across each plane, and from its middle outwards."""
    planes, height, width = shape
    down, across, out = random.uniform(-_FIELD, _FIELD, (3, planes, 1, 1)).astype(np.float32)
    rows, columns = np.linspace(-1, 1, height, dtype=np.float32)[:, None], np.linspace(-1, 1, width, dtype=np.float32)
    # e to the power of a sum of rows and columns: their outer product, so that few powers are taken
    by_row, by_column = down * rows + out / 2 * rows**2, across * columns + out / 2 * columns**2
    factors: np.ndarray = np.exp(by_row) * np.exp(by_column)
    return factors
