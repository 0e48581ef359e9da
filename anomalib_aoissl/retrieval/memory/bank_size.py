# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""How large a bank may be, in entries or megabytes, and what its entries stand for: patches or whole images."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from anomalib_aoissl.matching.precision import PRECISIONS
from anomalib_aoissl.plugin.arguments import Rule

if TYPE_CHECKING:
    from anomalib_aoissl.encoder.base import Encoder

_MEGABYTES = re.compile(r"\s*([0-9]*\.?[0-9]+)\s*MB\s*", flags=re.IGNORECASE)

MEGABYTES = Rule(
    "text",
    lambda value: isinstance(value, str),
    lambda value: _MEGABYTES.fullmatch(value) is not None,
    "be megabytes such as '8MB'",
)
"""The size of a bank as text."""

_NUMBERS_BYTES = 4 * 4
"""Bytes of an entry beside its embedding and labels: device, image, position and count, each int32."""


def entries_of_size(
    size: int | str | None, embed_dim: int, patch_size: tuple[int, int], precision: str = "fp32"
) -> int | None:
    """Return the entries that a bank of a size may have, None for any number.

    Args:
        size: Entries, `MEGABYTES` such as "8MB" (a million bytes each), or None.
        embed_dim: Dimensions of an embedding.
        patch_size: (height, width) of a patch, px.
        precision: Name in `PRECISIONS`.

    Raises:
        ValueError: If it is too small for one entry.
    """
    entries = size
    if isinstance(size, str):
        number = _MEGABYTES.fullmatch(size)
        assert number is not None  # noqa: S101 - for the type checker; `MEGABYTES` has checked it
        entry = embed_dim * PRECISIONS[precision].itemsize + patch_size[0] * patch_size[1] + _NUMBERS_BYTES
        entries = int(float(number[1]) * 1e6 / entry)
    if entries is not None and int(entries) < 1:
        msg = f"bank.size={size!r} holds no patch; it must be at least 1 patch."
        raise ValueError(msg)
    return None if entries is None else int(entries)


def entry_size(encoder: Encoder, level: str) -> tuple[int, int]:
    """Return the (height, width) in px of what votes as a whole: the encoder's patch, or its whole input."""
    return encoder.patch_size if level == "patches" else encoder.image_size


def check_head(level: str, head: bool) -> None:
    """Validate that there is no pixel head where whole images are compared.

    Raises:
        ValueError: If there is one.
    """
    if head and level == "images":
        msg = "vote.level='images' lets whole images vote, without the pixel head. Add head=null, or use patches."
        raise ValueError(msg)
