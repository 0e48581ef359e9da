# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The part of a large picture that is looked at where all of it would take too long."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..indices import IGNORE_INDEX


def rarest_part(size: Sequence[int], mask: np.ndarray | None, most: tuple[int, int]) -> tuple[slice, slice]:
    """Return rows and columns of a part of a picture: around a pixel of its rarest class, or its middle.

    Args:
        size: (height, width) px of the picture.
        mask: Its class indices ``[H, W]``, 255 is ignored; None where there is none.
        most: (height, width) px of the part; of a smaller picture all is taken.
    """
    counts = np.zeros(1) if mask is None else np.bincount(mask.ravel(), minlength=IGNORE_INDEX)[:IGNORE_INDEX]
    middle = [side // 2 for side in size]
    if mask is not None and counts.any():
        rarest = np.argwhere(mask == np.where(counts > 0, counts, np.inf).argmin())
        middle = rarest[len(rarest) // 2].tolist()
    starts = [max(min(at - side // 2, whole - side), 0) for at, side, whole in zip(middle, most, size, strict=True)]
    return slice(starts[0], starts[0] + most[0]), slice(starts[1], starts[1] + most[1])
