# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Embeddings of patches beside those of what lies around them."""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from anomalib_aoissl.encoder import PatchEncoder

CONTEXT = 0.6
"""Weight of the context in `AOISSLRetrieval` where nothing is said and patches are compared."""

_WINDOW = 5
"""Patches across, and down, whose mean is the context of the middle one."""


def check_context(context: float) -> None:
    """Refuse a weight of the context that is no weight.

    Raises:
        ValueError: If it is negative or not finite.
    """
    if isinstance(context, bool) or not (math.isfinite(context) and context >= 0):
        msg = f"context={context!r} must be a number of at least 0: 0 compares patches alone, 0.6 with their context."
        raise ValueError(msg)


def context_weight(context: float | None, retrieval: str) -> float:
    """Return the weight of the context: as said, or where nothing is said `CONTEXT`, of whole images none.

    Args:
        context: A weight, or None.
        retrieval: Name in `units.RETRIEVALS`.
    """
    if context is not None:
        return context
    return CONTEXT if retrieval == "patches" else 0.0


def embedding_size(encoder: PatchEncoder, context: float) -> int:
    """Return how many numbers an embedding has that is compared: with a context twice those of the encoder."""
    return encoder.embed_dim * (2 if context else 1)


def with_context(embeddings: torch.Tensor, grid: tuple[int, int], context: float) -> torch.Tensor:
    """Return embeddings ``[B, P, 2 * D]`` of unit length: each patch's own, and the mean of the 5x5 patches around it.

    The similarity of two of them is (s + w^2 c) / (1 + w^2), of the patches' similarity s, their contexts' c and the
    weight w. PatchCore averages neighbouring patches too [0]; differs in that the patch's own embedding stays beside
    the mean, since a thin thing is lost in the mean. At the border the mean is over the patches that there are.

    [0]: Towards Total Recall in Industrial Anomaly Detection, 2022, arXiv 2106.08265.

    Args:
        embeddings: ``[B, P, D]`` of unit length, row by row.
        grid: (rows, columns) of patches; P is their product.
        context: The weight w, greater than 0.
    """
    maps = embeddings.transpose(1, 2).unflatten(2, grid)  # [B, D, rows, columns]
    means = functional.avg_pool2d(maps, _WINDOW, stride=1, padding=_WINDOW // 2, count_include_pad=False)
    around = functional.normalize(means.flatten(2).transpose(1, 2), dim=-1, eps=1e-6)
    return torch.cat([embeddings, context * around], dim=-1) / math.sqrt(1 + context**2)
