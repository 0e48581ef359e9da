# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""A picture that a bank has already, under another name: found by what it looks like."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from .content import BankArrays, float_embeddings

_ALIKE = 0.995
"""Cosine similarity from which two patches are of one picture; embeddings in 8 bits stay above it."""

_ALIKE_WITH_MEASURES = 0.9
"""The same where the pictures have the same measures: a network in 8 bits gives embeddings of 0.93 and more."""

_SHARE = 0.9
"""Share of a picture's entries that must be alike; condensing puts a few in place of others."""


def same_picture(bank: BankArrays, new: BankArrays, measured: Collection[str] = ()) -> str | None:
    """Return the name of an image of the bank that shows the picture of another bank; None where there is none.

    Args:
        bank: The bank.
        new: Bank of one image.
        measured: Images of the bank whose pictures have the measures of the new one.
    """
    places, ids = bank.entries["positions"], bank.entries["image_ids"]
    entry_at = np.full(int(max(places.max(initial=0), new.entries["positions"].max(initial=0))) + 1, -1)
    entry_at[new.entries["positions"]] = np.arange(len(new))
    asked = np.flatnonzero(entry_at[places] >= 0)
    ours, theirs = float_embeddings(bank.entries)[asked], float_embeddings(new.entries)[entry_at[places[asked]]]
    limits = np.array([_ALIKE_WITH_MEASURES if name in measured else _ALIKE for name in bank.image_names])
    alike = np.einsum("nd,nd->n", ours, theirs) >= limits[ids[asked]]
    count = len(bank.image_names)
    compared, equal = np.bincount(ids[asked], minlength=count), np.bincount(ids[asked], alike, minlength=count)
    same = np.flatnonzero((compared > 0) & (equal >= _SHARE * compared))
    return bank.image_names[same[0]] if len(same) else None
