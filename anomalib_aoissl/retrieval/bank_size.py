# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""How large a bank may be: patches or megabytes to entries, and what its arguments may be."""

from __future__ import annotations

import re

from anomalib_aoissl.matching.precision import PRECISIONS

_NUMBERS_BYTES = 4 * 4
"""Bytes of an entry beside its embedding and labels: device, image, position and count, each int32."""


def entries_of_size(
    bank_size: int | str | None, embed_dim: int, patch_size: tuple[int, int], precision: str = "fp32"
) -> int | None:
    """Return the entries that a bank of ``bank_size`` may have, None for any number.

    Args:
        bank_size: Entries, megabytes such as "8MB" (a million bytes each), or None.
        embed_dim: Dimensions of an embedding.
        patch_size: (height, width) of a patch, px.
        precision: Name in `PRECISIONS`.

    Raises:
        ValueError: If it is neither, or too small for one entry, or the precision has no such name.
    """
    check_bank(precision=precision)
    entries = bank_size
    if isinstance(bank_size, str):
        number = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*MB\s*", bank_size, flags=re.IGNORECASE)
        if number is None:
            msg = f"bank_size={bank_size!r} must be a number of patches, megabytes such as '8MB', or null for all."
            raise ValueError(msg)
        entry = embed_dim * PRECISIONS[precision].itemsize + patch_size[0] * patch_size[1] + _NUMBERS_BYTES
        entries = int(float(number[1]) * 1e6 / entry)
    if entries is not None and int(entries) < 1:
        msg = f"bank_size={bank_size!r} holds no patch; it must be at least 1 patch."
        raise ValueError(msg)
    return None if entries is None else int(entries)


def check_bank(budget: int | None = None, precision: str = "fp32") -> None:
    """Validate what a bank is made with.

    Raises:
        ValueError: If the budget is below 1, or the precision has no such name.
    """
    if budget is not None and budget < 1:
        msg = f"A bank of {budget} entries holds no patch; it must be at least 1."
        raise ValueError(msg)
    if precision not in PRECISIONS:
        msg = f"bank_precision={precision!r} is not known. It must be one of {list(PRECISIONS)}."
        raise ValueError(msg)
