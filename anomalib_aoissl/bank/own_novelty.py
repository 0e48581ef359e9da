# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Whether a picture is novel all over, as another product is: its mean novelty beside that of the labelled images."""

from __future__ import annotations

import numpy as np

from .content import BankArrays, float_embeddings

NOVEL_ALL_OVER = 1.9
"""Mean novelty of a picture, in that of labelled images, from which it is another product; noise of 3 % has 1.8."""

_TWIN = 0.01
"""Mean novelty of images up to which they are one picture again and again: they do not say how pictures differ."""

_ASKED = 4000  # entries
_HELD = 1 << 23  # similarities at once


def own_novelty(bank: BankArrays) -> float | None:
    """Return the largest mean novelty of the bank's images, each asked of the entries of all others.

    An image that is alone on its device does not count, unless all are: it would make every device look familiar. Of a
    bank of more than 4,000 entries so many are asked, evenly taken. An entry counts as often as it stands for patches.

    Returns:
        The mean of 1 - cosine similarity to the nearest entry; None where no image can be asked of others, or where
        they are one picture again and again.
    """
    ids, devices = bank.entries["image_ids"], bank.entries["device_ids"]
    pairs = np.unique(np.stack([devices, ids]), axis=1)  # of device and image
    on_device = np.bincount(pairs[0]) if pairs.size else np.zeros(0, int)
    images = pairs[1][on_device[pairs[0]] > 1]
    images = images if len(images) else pairs[1]
    if len(np.unique(pairs[1])) < 2:
        return None
    asked = np.flatnonzero(np.isin(ids, images))
    asked = asked[np.linspace(0, len(asked) - 1, min(len(asked), _ASKED)).astype(int)]
    embeddings, counts = float_embeddings(bank.entries), bank.entries["counts"]
    novelty = np.empty(len(asked), np.float32)
    rows = max(_HELD // len(ids), 1)
    for first in range(0, len(asked), rows):
        part = asked[first : first + rows]
        similarities = embeddings[part] @ embeddings.T
        similarities[ids[part][:, np.newaxis] == ids] = -1  # its own image's
        novelty[first : first + len(part)] = 1 - similarities.max(axis=1)
    sums = np.bincount(ids[asked], novelty * counts[asked])
    totals = np.bincount(ids[asked], counts[asked])
    means = sums[totals > 0] / totals[totals > 0]
    return float(means.max()) if means.max() > _TWIN else None


def novelty_fault(novelty: float, known: float | None) -> str:
    """Return what is wrong with a picture of this mean novelty, "" for nothing, given `own_novelty` of the bank."""
    if known is None or novelty <= NOVEL_ALL_OVER * known:
        return ""
    return f"novel all over, as another product (mean novelty {novelty:.2f}, at most {known:.2f} in labelled pictures)"
