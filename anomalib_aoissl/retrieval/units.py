# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What is compared and votes as a whole: each patch of an image, or the image."""

from __future__ import annotations

from anomalib_aoissl.encoder import PatchEncoder

RETRIEVALS = ("patches", "images")
"""Names of what is retrieved."""


def unit_size(encoder: PatchEncoder, retrieval: str) -> tuple[int, int]:
    """Return the (height, width) in px of what votes as a whole: the encoder's patch, or its whole input."""
    return encoder.image_size if retrieval == "images" else encoder.patch_size


def check_retrieval(
    retrieval: str, *, labels: str, bank_shifts: int, query_shifts: int, position_directions: int
) -> None:
    """Refuse names that do not exist, and options of patches where whole images are retrieved.

    Raises:
        ValueError: If there is one.
    """
    if retrieval not in RETRIEVALS:
        msg = f"retrieval={retrieval!r} is not known. It must be one of {list(RETRIEVALS)}."
        raise ValueError(msg)
    given = {
        "labels": (labels, "complete"),
        "bank_shifts": (bank_shifts, 1),
        "query_shifts": (query_shifts, 1),
        "position_directions": (position_directions, 0),
    }
    for argument, (value, needed) in given.items():
        if retrieval == "images" and value != needed:
            msg = (
                f"{argument}={value!r} is about patches, but retrieval='images' compares whole images. Use "
                f"{argument}={needed!r}, or retrieval='patches'."
            )
            raise ValueError(msg)
