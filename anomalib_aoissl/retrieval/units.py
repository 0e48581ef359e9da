# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What is compared and votes as a whole: each patch of an image, or the image."""

from __future__ import annotations

import torch

from anomalib_aoissl.encoder import PatchEncoder

from .positions import check_directions
from .shifts import check_shifts

RETRIEVALS = ("patches", "images", "class_tokens")
"""Names of what is retrieved: patches, or whole images by the mean of their patches' embeddings or by class token."""


def unit_size(encoder: PatchEncoder, retrieval: str) -> tuple[int, int]:
    """Return the (height, width) in px of what votes as a whole: the encoder's patch, or its whole input."""
    return encoder.patch_size if retrieval == "patches" else encoder.image_size


def unit_embeddings(encoder: PatchEncoder, images: torch.Tensor, retrieval: str) -> torch.Tensor:
    """Return the embeddings ``[B, P, D]``, not normalised, of images ``[B, C, H, W]``; P is 1 for whole images."""
    if retrieval == "class_tokens":
        return encoder.class_tokens(images).unsqueeze(1)  # [B, 1, D]
    embeddings: torch.Tensor = encoder(images)  # [B, P, D]
    return embeddings if retrieval == "patches" else embeddings.mean(dim=1, keepdim=True)


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
    if retrieval == "class_tokens" and not encoder.has_class_token:
        msg = "retrieval='class_tokens', but the encoder has no class token. Use retrieval='images', the patches' mean."
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
        if retrieval != "patches" and value != needed:
            msg = (
                f"{argument}={value!r} is about patches, but retrieval={retrieval!r} compares whole images. Use "
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
