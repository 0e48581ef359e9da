# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What is compared and votes as a whole: each patch of an image, or the image."""

from __future__ import annotations

from anomalib_aoissl.encoder import PatchEncoder

from .positions import check_directions
from .shifts import check_shifts

RETRIEVALS = ("patches", "images")
"""Names of what is retrieved."""


def unit_size(encoder: PatchEncoder, retrieval: str) -> tuple[int, int]:
    """Return the (height, width) in px of what votes as a whole: the encoder's patch, or its whole input."""
    return encoder.image_size if retrieval == "images" else encoder.patch_size


def check_extraction(
    encoder: PatchEncoder, retrieval: str, labels: str, shifts: tuple[int, int], position_directions: int
) -> None:
    """Refuse what embeddings cannot be made with, and options of patches where whole images are retrieved.

    Args:
        encoder: The encoder.
        retrieval: Name in `RETRIEVALS`.
        labels: What neighbours vote for.
        shifts: Grids of labelled images and of new ones.
        position_directions: Directions of position that are taken out.

    Raises:
        ValueError: If one of them does not exist, is out of its range, or does not go with the others.
    """
    if retrieval not in RETRIEVALS:
        msg = f"retrieval={retrieval!r} is not known. It must be one of {list(RETRIEVALS)}."
        raise ValueError(msg)
    for argument, number in zip(("bank_shifts", "query_shifts"), shifts, strict=True):
        check_shifts(argument, number, encoder.patch_size)
    check_directions(position_directions, encoder.embed_dim)
    given = {
        "labels": (labels, "complete"),
        "bank_shifts": (shifts[0], 1),
        "query_shifts": (shifts[1], 1),
        "position_directions": (position_directions, 0),
    }
    for argument, (value, needed) in given.items():
        if retrieval == "images" and value != needed:
            msg = (
                f"{argument}={value!r} is about patches, but retrieval='images' compares whole images. Use "
                f"{argument}={needed!r}, or retrieval='patches'."
            )
            raise ValueError(msg)


def check_bank_unit(bank: tuple[int, int], unit: tuple[int, int], retrieval: str) -> None:
    """Refuse a bank whose rows are of another size than what is compared, both (height, width) in px.

    Raises:
        ValueError: If they differ.
    """
    if tuple(bank) != tuple(unit):
        msg = (
            f"The bank's rows are of {tuple(bank)} px (height, width), but retrieval={retrieval!r} with this encoder "
            f"compares {tuple(unit)} px. Make the bank with MemoryBank(embed_dim, {tuple(unit)})."
        )
        raise ValueError(msg)
