# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Which masks look wrong: shifted, mirrored, inverted, or of another picture.

The border of a right mask lies on edges of the picture. The *fit* of a mask is the mean edge strength along its border
(gradient, smoothed by 1 px, cut at its 95th percentile). It is computed for the mask as it is (best of shifts of up to
2 px, as drawn borders are not exact), for all shifts of 5 to 24 px, and for the mirrored mask. The *suspicion* is the
best of these others divided by the fit as it is: below 1 the mask lies best where it is.

A mask that is inverted has the same border. It is found by its share of foreground: with m the median share of all
masks, its suspicion is at least 1 + |share - m| - |1 - share - m|, above 1 where the inverted share is nearer to m.

Pictures are looked at with 640 px on the longer side at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from anomalib_aoissl.data.indices import BACKGROUND_INDEX, IGNORE_INDEX

_LONGEST, _SHIFT, _EXACT = 640, 24, 2  # px
_FLAT = 0.95
_MIRRORED: dict[str, int | tuple[int, int]] = {
    "mirrored left to right": 1,
    "mirrored top to bottom": 0,
    "turned by 180 degrees": (0, 1),
}


@dataclass(frozen=True)
class MaskSuspicion:
    """What speaks against one mask.

    Attributes:
        path: The picture.
        suspicion: Best other fit divided by the fit as it is; 0 for a mask without a border.
        reason: What would fit better.
        share: Share of the pixels that are foreground, 0 to 1.
        packed: The mask as it was looked at, a PNG; thousands of them fit into memory.
    """

    path: Path
    suspicion: float
    reason: str
    share: float
    packed: bytes

    def mask(self) -> np.ndarray:
        """Return the mask ``[h, w]`` uint8, small."""
        return np.asarray(cv2.imdecode(np.frombuffer(self.packed, np.uint8), cv2.IMREAD_UNCHANGED))


def look_at(path: Path, planes: np.ndarray, mask: np.ndarray) -> MaskSuspicion:
    """Return the evidence of one mask.

    Args:
        path: The picture.
        planes: ``[C, H, W]`` in [0, 1].
        mask: ``[H, W]`` uint8 class indices.
    """
    scale = min(1.0, _LONGEST / max(mask.shape))
    size = (max(8, round(mask.shape[1] * scale)), max(8, round(mask.shape[0] * scale)))
    grey = cv2.resize(planes.mean(axis=0), size, interpolation=cv2.INTER_AREA)
    small = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST_EXACT)
    counted = mask != IGNORE_INDEX
    share = float((mask[counted] != BACKGROUND_INDEX).mean()) if counted.any() else 0.0
    packed = cv2.imencode(".png", small)[1].tobytes()
    edges, border = _edges(grey), _border(small)
    if border.sum() < 8 or edges.max() <= 0:
        return MaskSuspicion(path, 0.0, "has no border to look at", share, packed)
    mirrored = {name: _best_near(edges, np.flip(border, axes)) for name, axes in _MIRRORED.items()}
    return MaskSuspicion(path, *_judged(_fits(edges, border), mirrored, scale), share, packed)


def _judged(fits: np.ndarray, mirrored: dict[str, float], scale: float) -> tuple[float, str]:
    """Return the best of the other fits divided by that of the mask as it is, and what it is."""
    down = np.arange(-_SHIFT, _SHIFT + 1)
    rows, columns = np.meshgrid(down, down, indexing="ij")
    distance = np.maximum(abs(rows), abs(columns))
    near = distance <= _EXACT
    as_is = max(float(fits[near].max()), 1e-6)
    shifted = np.where(distance <= 2 * _EXACT, 0, fits)
    best = int(shifted.argmax())
    row, column = float(rows.flat[best]), float(columns.flat[best])
    top = (shifted >= _FLAT * shifted.max()) & (np.maximum(abs(rows - row), abs(columns - column)) <= 2 * _EXACT)
    row, column = float(rows[top].mean()), float(columns[top].mean())  # smooth edges make flat tops
    others = {f"fits better {_way(column / scale, row / scale)}": float(shifted.max())}
    others |= {f"fits better {name}": fit for name, fit in mirrored.items()}
    reason = max(others, key=lambda key: others[key])
    return others[reason] / as_is, reason


def _way(right: float, down: float) -> str:
    """Return a shift in words."""
    parts = [f"{abs(right):.0f} px {'right' if right > 0 else 'left'}"] if round(right) else []
    parts += [f"{abs(down):.0f} px {'down' if down > 0 else 'up'}"] if round(down) else []
    return " and ".join(parts)


def _edges(grey: np.ndarray) -> np.ndarray:
    """Return the edge strength ``[H, W]`` in [0, 1]."""
    smooth = cv2.GaussianBlur(grey.astype(np.float32), (0, 0), 1.0)
    strength = np.hypot(cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1))
    return np.clip(strength / max(float(np.quantile(strength, 0.95)), 1e-6), 0, 1)


def _border(mask: np.ndarray) -> np.ndarray:
    """Return where two classes meet, ``[H, W]`` float32; borders of ignored pixels are none."""
    border = np.zeros(mask.shape, dtype=bool)
    for here, there in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        meets = (mask[here] != mask[there]) & (mask[here] != IGNORE_INDEX) & (mask[there] != IGNORE_INDEX)
        border[here] |= meets
        border[there] |= meets
    return border.astype(np.float32)


def _fits(edges: np.ndarray, border: np.ndarray) -> np.ndarray:
    """Return the mean edge strength along the border for each shift (down, right) of -24..24 px, ``[49, 49]``.

    A shift that brings more than half of the border out of the picture has 0.
    """
    shape = tuple(cv2.getOptimalDFTSize(side + 2 * _SHIFT) for side in edges.shape)
    spectrum = np.conj(np.fft.rfft2(border, shape))
    shifts = np.arange(-_SHIFT, _SHIFT + 1)

    def correlated(values: np.ndarray) -> np.ndarray:
        whole = np.fft.irfft2(np.fft.rfft2(values, shape) * spectrum, shape)
        return np.asarray(whole[np.ix_(shifts, shifts)])

    inside = correlated(np.ones_like(edges))
    return np.where(inside >= border.sum() / 2, correlated(edges) / np.maximum(inside, 1), 0)


def _best_near(edges: np.ndarray, border: np.ndarray) -> float:
    """Return the best of the fits with shifts of up to 2 px, by the border's pixels alone: there are few of them."""
    height, width = edges.shape
    padded, (rows, columns) = np.pad(edges, _EXACT), np.nonzero(border)
    best = 0.0
    for down in range(-_EXACT, _EXACT + 1):
        for right in range(-_EXACT, _EXACT + 1):
            inside = (rows + down >= 0) & (rows + down < height) & (columns + right >= 0) & (columns + right < width)
            count = int(inside.sum())
            if count >= len(rows) / 2:
                best = max(best, float(padded[rows + down + _EXACT, columns + right + _EXACT].sum()) / count)
    return best


def ranked(found: Sequence[MaskSuspicion]) -> list[MaskSuspicion]:
    """Return the evidence with inverted masks found among all, the most suspicious first."""
    middle = float(np.median([entry.share for entry in found])) if found else 0.0
    judged = []
    for entry in found:
        inverted = 1 + abs(entry.share - middle) - abs(1 - entry.share - middle)
        if inverted > max(1.0, entry.suspicion):
            what = f"may be inverted: {entry.share:.0%} foreground, others have {middle:.0%}"
            judged.append(replace(entry, suspicion=inverted, reason=what))
        else:
            judged.append(entry)
    return sorted(judged, key=lambda entry: -entry.suspicion)
