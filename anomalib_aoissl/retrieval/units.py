# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What is compared and votes as a whole: each patch of an image, or the image."""

from __future__ import annotations

import torch

from anomalib_aoissl.encoder import PatchEncoder

from .context import check_context
from .memory_bank import MemoryBank
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
    encoder: PatchEncoder,
    retrieval: str,
    labels: str,
    shifts: tuple[int, int],
    position_directions: int,
    context: float,
) -> None:
    """Refuse what embeddings cannot be made with, and options of patches where whole images are retrieved.

    Args:
        encoder: The encoder.
        retrieval: Name in `RETRIEVALS`.
        labels: What neighbours vote for.
        shifts: Grids of labelled images and of new ones.
        position_directions: Directions of position that are taken out.
        context: Weight of the patches around each.

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
    check_context(context)
    given = {
        "labels": (labels, "complete"),
        "bank_shifts": (shifts[0], 1),
        "query_shifts": (shifts[1], 1),
        "position_directions": (position_directions, 0),
        "context": (context, 0),
    }
    for argument, (value, needed) in given.items():
        if retrieval != "patches" and value != needed:
            msg = (
                f"{argument}={value!r} is about patches, but retrieval={retrieval!r} compares whole images. Use "
                f"{argument}={needed!r}, or retrieval='patches'."
            )
            raise ValueError(msg)


def check_bank_unit(bank: MemoryBank, dims: int, unit: tuple[int, int], retrieval: str) -> None:
    """Refuse a bank whose rows have another size, (height, width) in px, or other dimensions than what is compared.

    Raises:
        ValueError: If they differ.
    """
    if tuple(bank.patch_size) != tuple(unit):
        msg = (
            f"The bank's rows are of {tuple(bank.patch_size)} px (height, width), but retrieval={retrieval!r} with "
            f"this encoder compares {tuple(unit)} px. Make the bank with MemoryBank({dims}, {tuple(unit)})."
        )
        raise ValueError(msg)
    if bank.embeddings.shape[1] != dims:
        msg = (
            f"The bank's embeddings have {bank.embeddings.shape[1]} dimensions, this encoder's have {dims} (with a "
            f"context twice as many). Make the bank with MemoryBank({dims}, {tuple(unit)})."
        )
        raise ValueError(msg)
