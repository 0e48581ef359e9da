# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What is compared and votes as a whole: each patch of an image, or the image."""

from __future__ import annotations

from anomalib_aoissl.encoder.vit import PatchEncoder

from .memory_bank import MemoryBank

RETRIEVALS = ("patches", "images")
"""Names of what is retrieved: patches, or whole images by the mean of their patches' embeddings."""


def unit_size(encoder: PatchEncoder, retrieval: str) -> tuple[int, int]:
    """Return the (height, width) in px of what votes as a whole: the encoder's patch, or its whole input."""
    return encoder.patch_size if retrieval == "patches" else encoder.image_size


def check_extraction(retrieval: str, head: bool) -> None:
    """Validate what is retrieved.

    Raises:
        ValueError: If there is no such name, or a pixel head is asked for where whole images are compared.
    """
    if retrieval not in RETRIEVALS:
        msg = f"retrieval={retrieval!r} is not known. It must be one of {list(RETRIEVALS)}."
        raise ValueError(msg)
    if head and retrieval == "images":
        msg = "retrieval='images' lets whole images vote, without the pixel head. Add head=null, or use patches."
        raise ValueError(msg)


def check_bank_unit(bank: MemoryBank, dims: int, unit: tuple[int, int], retrieval: str) -> None:
    """Validate that a bank's entries have the size, (height, width) in px, and the dimensions of what is compared.

    Raises:
        ValueError: If they differ.
    """
    if tuple(bank.patch_size) != tuple(unit):
        msg = (
            f"The bank's entries are of {tuple(bank.patch_size)} px (height, width), but retrieval={retrieval!r} with "
            f"this encoder compares {tuple(unit)} px. Make the bank with MemoryBank({dims}, {tuple(unit)})."
        )
        raise ValueError(msg)
    if bank.embeddings.shape[1] != dims:
        msg = (
            f"The bank's embeddings have {bank.embeddings.shape[1]} dimensions, this encoder's have {dims}. Make the "
            f"bank with MemoryBank({dims}, {tuple(unit)})."
        )
        raise ValueError(msg)
