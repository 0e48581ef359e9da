# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The retrieval model as tensors: extract patch embeddings, match them with the bank, combine the labels."""

from __future__ import annotations

import torch
from anomalib.data import InferenceBatch
from torch import nn
from torch.nn import functional

from anomalib_aoissl.encoder import PatchEncoder

from .aggregation import check_aggregation, class_shares, combine, combine_averages, repetitions, vote_weights
from .faiss_search import FaissSearch, check_search
from .memory_bank import MemoryBank
from .patches import patches_to_image
from .precision import restored
from .searching import search as exact_search

__all__ = ["RetrievalModel", "combine", "match", "repetitions"]

BANK_CHUNK = 16384
"""Rows of the bank that are compared at once; bounds the similarities in memory at 64 KiB for each query patch."""


LABEL_BLOCK = 64
"""Queries whose neighbours' labels are combined at once outside of an export."""


class RetrievalModel(nn.Module):
    """Frozen patch encoder and memory bank: normalised images to class indices and novelty.

    The labels of a query patch are those of its k most similar bank patches, weighted by a softmax over their cosine
    similarities, pixel by pixel [0][1]. Nothing here branches or loops on the number of queries, so that the exported
    graph takes any batch.

    [0]: AOI-SSL, 2026, arXiv 2605.12430. [1]: Towards In-context Scene Understanding, 2023, arXiv 2306.01667; differs
    in that labels stay at pixel resolution and the softmax is over k neighbours.

    Args:
        encoder: The encoder; it is frozen.
        k: Neighbours that vote; a smaller bank lets all its rows vote.
        temperature: Of the softmax over the similarities; small values follow the nearest neighbour.
        aggregation: What a neighbour's vote weighs, a name of `aggregation.AGGREGATIONS`.
        labels: What neighbours vote for, a name of `aggregation.LABELS`.
        search: How the bank is searched, a name of `faiss_search.SEARCHES`; an export always searches exactly.
        bank: The bank, of this encoder's embeddings; an empty one of any size where none is given.

    Raises:
        ValueError: If k is below 1, the temperature is not positive, or aggregation, labels or search have no such
            name.
        ModuleNotFoundError: If the search needs FAISS and it is not installed.
    """

    def __init__(
        self,
        encoder: PatchEncoder,
        *,
        k: int = 30,
        temperature: float = 0.02,
        aggregation: str = "attention",
        labels: str = "complete",
        search: str = "exact",
        bank: MemoryBank | None = None,
    ) -> None:
        super().__init__()
        if k < 1:
            msg = f"k={k} must be at least 1."
            raise ValueError(msg)
        if not temperature > 0:
            msg = f"temperature={temperature} must be greater than 0; the paper's value is 0.02."
            raise ValueError(msg)
        check_aggregation(aggregation, labels)
        check_search(search)
        self.encoder = encoder.requires_grad_(False)
        self.encoder.eval()
        self.bank = MemoryBank(encoder.embed_dim, encoder.patch_size) if bank is None else bank
        self.k = k
        self.temperature = temperature
        self.aggregation, self.labels = aggregation, labels
        self.search = exact_search if search == "exact" else FaissSearch(search)

    @property
    def num_classes(self) -> int:
        """Classes that the bank's labels may name."""
        return len(self.bank.class_names)

    def train(self, mode: bool = True) -> RetrievalModel:
        """Set the mode; the encoder stays in evaluation mode, since it is frozen."""
        super().train(mode)
        self.encoder.eval()
        return self

    def extract(self, images: torch.Tensor) -> torch.Tensor:
        """Return embeddings of unit length ``[B, P, D]`` of normalised images ``[B, C, H, W]``."""
        with torch.no_grad():
            return functional.normalize(self.encoder(images), dim=-1, eps=1e-6)

    def fill(self, images: torch.Tensor, masks: torch.Tensor, devices: list[str], names: list[str]) -> None:
        """Put normalised labelled images into the bank; searched after ``bank.finish()``."""
        self.bank.add(self.extract(images), masks, devices, names)

    def forward(self, images: torch.Tensor) -> InferenceBatch:
        """Return class indices ``[B, 1, H, W]`` uint8, novelty ``[B, 1, H, W]`` in [0, 2] and its maximum ``[B]``.

        Args:
            images: Normalised images ``[B, C, H, W]`` of the encoder's input size.

        Raises:
            RuntimeError: If the bank is empty.
        """
        return self.answer(self.extract(images))

    def answer(self, embeddings: torch.Tensor) -> InferenceBatch:
        """Return what `forward` returns, of images whose embeddings ``[B, P, D]`` `extract` gave.

        Raises:
            RuntimeError: If the bank is empty.
        """
        rows, columns = self.encoder.grid_size
        similarities, neighbours, weights = self.vote(embeddings.flatten(0, 1))  # [Q, k] each, Q = B * P
        classes = self.combine(weights, neighbours)  # [Q, L]
        patch = self.encoder.patch_size
        mask = patches_to_image(classes.unflatten(0, (-1, rows * columns)), (rows, columns), patch)  # [B, H, W]
        novelty = 1.0 - similarities[:, 0].reshape(-1, 1, rows, columns)  # [B, 1, rows, columns]
        size = self.encoder.image_size
        return InferenceBatch(
            pred_score=novelty.amax(dim=(1, 2, 3)),
            anomaly_map=functional.interpolate(novelty, size=size, mode="bilinear", align_corners=False),
            pred_mask=mask.unsqueeze(1),
        )

    def vote(self, queries: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the similarity, the row and the weight ``[Q, k]`` of each neighbour of queries ``[Q, D]``.

        Raises:
            RuntimeError: If the bank is empty.
        """
        if not len(self.bank):
            msg = "The memory bank is empty: train on labelled images first, or load a checkpoint (ckpt_path)."
            raise RuntimeError(msg)
        find = match if torch.compiler.is_exporting() else self.search  # an export has no loops, and is exact
        similarities, neighbours = find(queries, self.bank.embeddings, self.k)
        weights = vote_weights(similarities, self.aggregation, self.temperature)
        if len(self.bank.counts):
            weights = weights * repetitions(self.bank.counts[neighbours], self.k)
        return similarities, neighbours, weights

    def combine(self, weights: torch.Tensor, neighbours: torch.Tensor) -> torch.Tensor:
        """Return the class of each pixel ``[Q, L]`` uint8 from the weights and rows ``[Q, k]`` of the neighbours."""
        if self.labels == "complete" and torch.compiler.is_exporting():
            return combine(weights, self.bank.labels[neighbours], self.num_classes)
        if self.labels == "complete":  # in blocks, whose votes stay in the processor's cache
            parts = zip(weights.split(LABEL_BLOCK), neighbours.split(LABEL_BLOCK), strict=True)
            return torch.cat([combine(part, self.bank.labels[rows], self.num_classes) for part, rows in parts])
        shares = class_shares(self.bank.labels, self.num_classes)  # [N, C]
        return combine_averages(weights, shares[neighbours]).unsqueeze(1).expand(-1, self.bank.labels.shape[1])


def match(queries: torch.Tensor, keys: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the k largest inner products ``[Q, k]`` in falling order, and the rows ``[Q, k]`` that they belong to.

    Exact. The bank is compared in chunks, each of which gives its k best; the best of all chunks are the best of all.

    Args:
        queries: ``[Q, D]``.
        keys: ``[N, D]``, as a bank stores them; k is cut to N.
        k: Neighbours of each query.
    """
    values, indices = [], []
    for start in range(0, len(keys), BANK_CHUNK):
        chunk = restored(keys[start : start + BANK_CHUNK], queries.dtype)
        best = torch.topk(queries @ chunk.transpose(0, 1), min(k, len(chunk)), dim=-1)
        values.append(best.values)
        indices.append(best.indices + start)
    if len(values) == 1:
        return values[0], indices[0]
    candidates = torch.cat(values, dim=-1)  # [Q, chunks * k]
    best = torch.topk(candidates, min(k, len(keys)), dim=-1)
    return best.values, torch.cat(indices, dim=-1).gather(-1, best.indices)
