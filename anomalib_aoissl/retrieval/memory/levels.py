# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What is compared and votes as a whole: each patch of an image, or the image."""

from __future__ import annotations

from anomalib_aoissl.encoder.base import Encoder

from .memory_bank import MemoryBank


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


def check_bank_size(bank: MemoryBank, dims: int, unit: tuple[int, int], level: str) -> None:
    """Validate that a bank's entries have the size, (height, width) in px, and the dimensions of what is compared.

    Raises:
        ValueError: If they differ.
    """
    if tuple(bank.patch_size) != tuple(unit):
        msg = (
            f"The bank's entries are of {tuple(bank.patch_size)} px (height, width), but vote.level={level!r} with "
            f"this encoder compares {tuple(unit)} px. Make the bank with MemoryBank({dims}, {tuple(unit)})."
        )
        raise ValueError(msg)
    if bank.embeddings.shape[1] != dims:
        msg = (
            f"The bank's embeddings have {bank.embeddings.shape[1]} dimensions, this encoder's have {dims}. Make the "
            f"bank with MemoryBank({dims}, {tuple(unit)})."
        )
        raise ValueError(msg)
