# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The k most similar entries of a bank, exactly, on the processor as fast as its matrix product goes."""

from __future__ import annotations

from typing import Any

import torch
from torch.compiler import is_exporting

from .precision import restored

BANK_CHUNK = 32768
"""Entries of the bank that are compared at once, at least k; lower precisions are widened chunk by chunk."""

QUERY_BLOCK = 128
"""Queries that are compared at once: their similarities, 16 MiB a chunk, stay in memory that is used again."""

_GROUP = 32
"""Columns whose largest value stands for them while the best are looked for."""


def search(queries: torch.Tensor, keys: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the k largest inner products ``[Q, k]`` in falling order, and the entries ``[Q, k]`` that they belong to.

    Exact, in the precision of the queries; costs a product of all queries with all entries, however many images
    they came from. Needs memory for one chunk of entries and one block of similarities; in an export, of all queries'.

    Args:
        queries: ``[Q, D]``.
        keys: ``[N, D]``, as a bank stores them; k is cut to N.
        k: Neighbours of each query.
    """
    k, size = min(k, len(keys)), max(BANK_CHUNK, k)
    found: list[tuple[torch.Tensor, torch.Tensor]] = []
    for start in range(0, len(keys), size):
        values, entries = _nearest(queries, restored(keys[start : start + size], queries.dtype), k)
        found.append((values, entries + start))
    if len(found) == 1:
        return found[0]
    best = torch.cat([values for values, _ in found], dim=-1).topk(k, dim=-1)
    return best.values, torch.cat([entries for _, entries in found], dim=-1).gather(-1, best.indices)


def _nearest(queries: torch.Tensor, keys: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what `search` does, of floats that are compared at once."""
    if is_exporting():  # a graph has no loop over the queries, and its runtime a product of its own
        best = (queries @ keys.transpose(0, 1)).topk(min(k, len(keys)), dim=-1)
        return best.values, best.indices
    blocks = [largest(products(block, keys), k) for block in queries.split(QUERY_BLOCK)]
    return torch.cat([values for values, _ in blocks]), torch.cat([entries for _, entries in blocks])


def products(queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Return the inner products ``[Q, N]`` of queries ``[Q, D]`` and entries ``[N, D]``.

    On processors by oneDNN where torch was built with it, as torch's own compiler does: torch's plain product is
    MKL's, which on processors of other makers than Intel takes nearly twice the time.
    """
    linear: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None
    plain = queries.device.type != "cpu" or queries.dtype != torch.float32 or queries.requires_grad
    if linear is None or plain or keys.dtype != queries.dtype:
        return queries @ keys.transpose(0, 1)
    return linear(queries, keys.contiguous(), None, "none", [], "")


def largest(values: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the k largest values ``[Q, k]`` of ``[Q, N]`` in falling order, and their columns; k is cut to N.

    The k largest values lie in the k groups of columns with the largest maxima, so that only those are sorted [0].

    [0]: two-stage top-k, as in Johnson, Douze, Jégou, Billion-scale similarity search with GPUs, 2017, arXiv
    1702.08734; differs in that the first stage takes one value of each group, which is enough for exactness.
    """
    queries, columns = values.shape
    groups = columns // _GROUP
    if groups <= k:
        best = values.topk(min(k, columns), dim=-1)
        return best.values, best.indices
    grouped = values[:, : groups * _GROUP].reshape(queries, _GROUP, groups)  # column = member * groups + group
    chosen = grouped.amax(dim=1).topk(k, dim=-1).indices  # [Q, k]
    candidates = grouped.gather(2, chosen.unsqueeze(1).expand(-1, _GROUP, -1)).flatten(1)  # [Q, 32 * k]
    candidates = torch.cat([candidates, values[:, groups * _GROUP :]], dim=1)  # and the columns of no group
    best = candidates.topk(k, dim=-1)
    member, group = best.indices // k, chosen.gather(1, best.indices % k)
    outside = best.indices - _GROUP * k + groups * _GROUP
    return best.values, torch.where(member < _GROUP, member * groups + group, outside)
