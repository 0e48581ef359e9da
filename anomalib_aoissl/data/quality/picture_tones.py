# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Whether a picture is inverted, or its planes are in another order, beside the labelled ones; without torch.

Both are found where the picture, changed back, is clearly more like the labelled ones than as it is. Light is taken out
first, as the model does: a gain, a gamma or a cast changes little.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import cv2
import numpy as np

SWAPPED_FARTHER, INVERTED_FARTHER = 1.2, 2.0
"""So many times as far from the labelled pictures a picture is as when it is changed back."""

SWAPPED_WITHOUT_CAST = 1.05
"""The same where the planes' ratios do not count: a lamp of another colour is not two swapped planes."""

SWAPPED_LEAST, INVERTED_LEAST = 0.05, 0.4
"""Distances that are never called so."""

_SIDE, _READ = 128, 512  # px of the picture that is looked at, and of what it is made from
_SHARES = np.linspace(0.05, 0.95, 10)
_FLOOR = 0.1  # added before the logarithm
_LEAST_DEVIATION = 1e-3
_RATIOS = 0.5  # weight of the planes' ratios, which lamps change

Tones = tuple[float, ...]
"""What `picture_tones` returns."""


def picture_tones(planes: np.ndarray) -> Tones:
    """Return what the tones of planes ``[C, H, W]`` in [0, 1] are like; the sum of differences of two is a distance.

    Of the logarithm of intensities: ten quantiles of each plane, standardised; the planes' correlations; and how much
    brighter one is than another.
    """
    return _Tones(_small(planes)).in_order(range(len(planes)))


def tone_fault(planes: np.ndarray, labelled: Sequence[Tones] | np.ndarray) -> tuple[str, str]:
    """Return how a picture ``[C, H, W]`` was changed beside labelled ones, and the figures; "" twice for not.

    Args:
        planes: The picture.
        labelled: `picture_tones` ``[N, T]`` of the labelled ones.
    """
    if not len(labelled):
        return "", ""
    small, known, places = _small(planes), np.asarray(labelled), range(len(planes))
    pairs, tones = [*combinations(places, 2)], _Tones(small)
    found, without_cast = _distances(tones.in_order(places), known, len(pairs))
    back, _ = _distances(_Tones(1 - small).in_order(places), known, len(pairs))
    if found > max(INVERTED_LEAST, INVERTED_FARTHER * back):
        return "inverted", _figures(found, back)
    if not pairs:
        return "", ""
    exchanged = [(_distances(tones.in_order(_exchanged(*pair, places)), known, len(pairs)), pair) for pair in pairs]
    (back, back_without_cast), (first, second) = min(exchanged)
    farther = found > max(SWAPPED_LEAST, SWAPPED_FARTHER * back)
    if not farther or without_cast <= SWAPPED_WITHOUT_CAST * back_without_cast:
        return "", ""
    return f"planes {first} and {second} swapped", _figures(found, back)


def _figures(found: float, back: float) -> str:
    """Return distances as text."""
    return f"tones {found:.2f} from those of labelled pictures, {back:.2f} when changed back"


def _exchanged(first: int, second: int, places: Sequence[int]) -> list[int]:
    """Return places with two of them exchanged."""
    return [{first: second, second: first}.get(place, place) for place in places]


def _small(planes: np.ndarray) -> np.ndarray:
    """Return planes ``[C, H, W]`` at 128 px at most each way, of large pictures from every so many-th pixel."""
    step = max(min(planes.shape[1:]) // _READ, 1)
    height, width = (min(side, _SIDE) for side in planes.shape[1:])
    read = np.ascontiguousarray(planes[:, ::step, ::step])
    return np.stack([cv2.resize(plane, (width, height), interpolation=cv2.INTER_AREA) for plane in read])


class _Tones:
    """The tones of planes ``[C, h, w]``, in any order of them."""

    def __init__(self, planes: np.ndarray) -> None:
        logarithms = np.log(planes.reshape(len(planes), -1).clip(0, 1).astype(np.float64) + _FLOOR)
        self.means = logarithms.mean(axis=1)
        deviations = logarithms.std(axis=1) + _LEAST_DEVIATION
        standardised = (logarithms - self.means[:, None]) / deviations[:, None]
        self.quantiles = np.quantile(standardised, _SHARES, axis=1).T
        self.correlations = standardised @ standardised.T / standardised.shape[1]

    def in_order(self, order: Sequence[int]) -> Tones:
        """Return the tones of planes in an order, each times its weight in a distance."""
        pairs = [*combinations(order, 2)]
        correlations = [self.correlations[pair] for pair in pairs]
        ratios = [_RATIOS * (self.means[first] - self.means[second]) for first, second in pairs]
        parts = [np.ravel(part) / max(np.size(part), 1) for part in (self.quantiles[[*order]], correlations, ratios)]
        return tuple(np.concatenate(parts).tolist())


def _distances(tones: Tones, labelled: np.ndarray, pairs: int) -> tuple[float, float]:
    """Return the distance of tones from the nearest of labelled ones ``[N, T]``, and that without the pairs' ratios."""
    differences = np.abs(labelled - np.array(tones))
    ratios = differences[:, differences.shape[1] - pairs :].sum(axis=1)
    sums = differences.sum(axis=1)
    return float(sums.min()), float((sums - ratios).min())
