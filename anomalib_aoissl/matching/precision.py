# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What a bank's embeddings are stored in, and the way there and back."""

from __future__ import annotations

import torch
from torch.nn import functional

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "int8": torch.int8}
"""What embeddings may be stored in, by name."""

_LARGEST = 127
"""Largest integer of an entry in int8; symmetric, so that zero stays zero."""


def stored(embeddings: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return embeddings ``[N, D]`` of unit length as they are stored.

    In int8 each entry has a scale of its own, that of its largest value to 127. It is not stored, since the length of
    the entry is known to be 1: the entry's integers give its direction, and the direction is all that there is.

    Args:
        embeddings: ``[N, D]`` floats of unit length.
        dtype: A value of `PRECISIONS`.
    """
    if dtype != torch.int8:
        return embeddings.to(dtype)
    largest = embeddings.abs().amax(dim=-1, keepdim=True).clamp(min=1e-12)
    return (embeddings.float() * (_LARGEST / largest.float())).round().to(torch.int8)


def restored(embeddings: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Return stored embeddings ``[N, D]`` as floats of unit length; those that are floats only change their type."""
    if embeddings.dtype != torch.int8:
        return embeddings.to(dtype)
    return functional.normalize(embeddings.to(dtype), dim=-1)


def converted(embeddings: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return embeddings that are stored in one precision as they are stored in another."""
    return embeddings if embeddings.dtype == dtype else stored(restored(embeddings), dtype)
