# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Features and networks of the pixel head as arrays, as they are stored; without torch."""

from __future__ import annotations

import numpy as np

Layers = tuple[np.ndarray, ...]
"""Weights ``[in, out]`` and bias ``[out]`` of each layer in turn, float32."""

LEVELS = 127
"""Largest integer of a stored feature."""

_RANGE = 6.0
"""Standard deviations up to which features are stored; larger ones are cut."""

STEP = _RANGE / LEVELS
"""Standard deviations that one integer of a stored feature stands for."""


def stored_values(values: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return features ``[N, F]`` standardised by a mean and a scale ``[F]``, as int8 in units of `STEP`."""
    units = (values - mean) / (scale * np.float32(STEP))
    return np.clip(np.rint(units), -LEVELS, LEVELS).astype(np.int8)
