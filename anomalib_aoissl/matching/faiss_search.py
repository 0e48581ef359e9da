# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The search of a bank by FAISS, for banks that outgrow a matrix product; an optional dependency."""

from __future__ import annotations

from typing import Any

import torch

from .precision import restored
from .searching import search

SEARCHES = ("exact", "faiss-flat", "faiss-ivf")
"""Names of the ways to search: a matrix product, FAISS's own exact index, its index of cells of which few are read."""

_ENTRIES_PER_CELL = 64  # FAISS asks for 39 at least
_READ_SHARE = 1 / 16  # of the cells, for each query; 8 cells at least


def check_faiss(name: str) -> None:
    """Validate that FAISS is installed where a search of `SEARCHES` needs it.

    Raises:
        ModuleNotFoundError: If it is not.
    """
    if name != "exact":
        _faiss(name)


class FaissSearch:
    """An index over a bank's entries, built when first searched and again when the bank's embeddings are others.

    Not saved: it is built from the bank in seconds. Novelty needs the nearest entry: "faiss-ivf" may miss it.

    Args:
        name: "faiss-flat", exact, or "faiss-ivf", which reads a sixteenth of the cells of entries.

    Raises:
        ModuleNotFoundError: If FAISS is not installed.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._of: tuple[torch.Tensor, int] | None = None
        self._index: Any = None

    def __call__(self, queries: torch.Tensor, keys: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what `searching.search` returns; queries whose cells hold less than k entries are searched exactly."""
        version = 0 if keys.is_inference() else keys._version
        if self._of is None or self._of[0] is not keys or self._of[1] != version:
            self._index, self._of = self._built(keys), (keys, version)
        k = min(k, len(keys))
        found = self._index.search(queries.detach().float().cpu().numpy(), k)
        similarities, entries = (torch.from_numpy(array).to(queries.device) for array in found)
        lacking = (entries < 0).any(dim=1)
        if bool(lacking.any()):
            similarities[lacking], entries[lacking] = search(queries[lacking].float(), keys, k)
        return similarities.to(queries.dtype), entries

    def _built(self, keys: torch.Tensor) -> Any:
        """Return the index of these entries."""
        faiss = _faiss(self.name)
        vectors = restored(keys.cpu()).numpy()
        cells = len(vectors) // _ENTRIES_PER_CELL
        index = faiss.IndexFlatIP(vectors.shape[1])
        if self.name == "faiss-ivf" and cells > 1:
            index = faiss.IndexIVFFlat(index, vectors.shape[1], cells, faiss.METRIC_INNER_PRODUCT)
            index.nprobe = max(8, round(cells * _READ_SHARE))
            index.cp.seed = 0
            index.train(vectors)
        index.add(vectors)
        return index

    def __getstate__(self) -> dict[str, Any]:
        """Leave the index out of what is pickled or copied."""
        return {"name": self.name, "_of": None, "_index": None}


def _faiss(name: str) -> Any:
    """Return the module."""
    try:
        import faiss
    except ModuleNotFoundError as error:
        msg = f"search={name!r} needs FAISS: pip install 'anomalib-aoissl[faiss]', or use search='exact'."
        raise ModuleNotFoundError(msg, name="faiss") from error
    return faiss
