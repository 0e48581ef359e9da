# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The retrieval model as tensors: extract patch embeddings, match them with the bank, combine the labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from anomalib.data import InferenceBatch
from torch import nn
from torch.nn import functional

from anomalib_aoissl.encoder import PatchEncoder
from anomalib_aoissl.marking import is_marking, mark

from .abstention import Abstention, uncertainty_of, winning_share
from .aggregation import (
    NEIGHBOURS,
    TEMPERATURE,
    average_votes,
    check_aggregation,
    check_class_rules,
    class_shares,
    class_values,
    class_votes,
    class_weights,
    repetitions,
    vote_weights,
    votes_by_class,
    winners,
)
from .context import embedding_size, with_context
from .faiss_search import FaissSearch, check_search
from .memory_bank import MemoryBank
from .patches import patches_to_image
from .positions import position_basis, without_directions
from .searching import search as exact_search
from .shifts import mean_over_grids, shift_offsets, shifted_images, shifted_masks
from .smoothing import check_smoothing, class_maps, smooth_shares, smoothed, vote_shares
from .units import check_bank_unit, check_extraction, unit_embeddings, unit_size

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
        class_temperatures: Temperature of the classes that do not take ``temperature``, by name; see
            `aggregation.class_weights`.
        class_thresholds: Share of the vote that a class needs to win, 0 to 1, by name; see `aggregation.winners`.
        retrieval: What is compared and votes as a whole, a name of `units.RETRIEVALS`.
        bank_shifts: Patch grids of each labelled image that fill the bank, a number of `shifts.SHIFTS`.
        query_shifts: Patch grids of a new image whose shares of the vote, and novelty, are averaged pixel by pixel.
        smoothing: Times that the shares of the vote are averaged over neighbouring pixels, see `smoothing.smoothed`;
            not of "average" labels, whose patches have one class.
        position_directions: Directions of `positions.position_basis` that are taken out of all embeddings.
        context: Weight of the mean of the patches around each beside its own embedding, see `context.with_context`; 0
            for the patch alone.
        search: How the bank is searched, a name of `faiss_search.SEARCHES`; an export always searches exactly.
        bank: The bank, of this encoder's embeddings; an empty one of any size where none is given.
        abstain: Share of the calibration's pixels that may be abstained from; None for no abstention.

    Raises:
        ValueError: If an argument is out of its range, or there is no such name.
        ModuleNotFoundError: If the search needs FAISS and it is not installed.
    """

    position_basis: torch.Tensor

    def __init__(
        self,
        encoder: PatchEncoder,
        *,
        k: int = NEIGHBOURS,
        temperature: float = TEMPERATURE,
        aggregation: str = "attention",
        labels: str = "complete",
        class_temperatures: Mapping[str, float] | None = None,
        class_thresholds: Mapping[str, float] | None = None,
        retrieval: str = "patches",
        bank_shifts: int = 1,
        query_shifts: int = 1,
        smoothing: int = 0,
        position_directions: int = 0,
        context: float = 0.0,
        search: str = "exact",
        bank: MemoryBank | None = None,
        abstain: float | None = None,
    ) -> None:
        super().__init__()
        if k < 1:
            msg = f"k={k} must be at least 1."
            raise ValueError(msg)
        if not temperature > 0:
            msg = f"temperature={temperature} must be greater than 0; the paper's value is 0.02."
            raise ValueError(msg)
        self.class_temperatures, self.class_thresholds = dict(class_temperatures or {}), dict(class_thresholds or {})
        check_aggregation(aggregation, labels)
        check_class_rules(self.class_temperatures, self.class_thresholds, aggregation)
        check_extraction(encoder, retrieval, labels, (bank_shifts, query_shifts), position_directions, context)
        check_smoothing(smoothing)
        check_search(search)
        self.encoder = encoder.requires_grad_(False)
        self.encoder.eval()
        self.patch_size = unit_size(encoder, retrieval)
        self.context = context
        dims = embedding_size(encoder, context)
        self.bank = MemoryBank(dims, self.patch_size) if bank is None else bank
        check_bank_unit(self.bank, dims, self.patch_size, retrieval)
        self.k = k
        self.temperature = temperature
        self.aggregation, self.labels, self.retrieval = aggregation, labels, retrieval
        self.bank_shifts, self.query_shifts = bank_shifts, query_shifts
        self.smoothing = smoothing if labels == "complete" else 0
        self.search = exact_search if search == "exact" else FaissSearch(search)
        self.abstention = Abstention(abstain)
        # Zeros take nothing out; found with the weights that the bank is filled with, and saved with it.
        basis = torch.zeros(position_directions, encoder.embed_dim)
        self.register_buffer("position_basis", basis, persistent=position_directions > 0)

    @property
    def grid_size(self) -> tuple[int, int]:
        """Patches of an image that are compared, (rows, columns); (1, 1) where whole images are."""
        (height, width), patch = self.encoder.image_size, self.patch_size
        return height // patch[0], width // patch[1]

    @property
    def embedding_options(self) -> dict[str, Any]:
        """What beside the encoder decides the embeddings, as plain data for `encoder_hash`; empty for plain patches."""
        plain = {"retrieval": "patches", "position_directions": 0, "context": 0.0}
        options = {
            "retrieval": self.retrieval,
            "position_directions": len(self.position_basis),
            "context": self.context,
        }
        return {name: value for name, value in options.items() if value != plain[name]}

    @property
    def num_classes(self) -> int:
        """Classes that the bank's labels may name."""
        return len(self.bank.class_names)

    def train(self, mode: bool = True) -> RetrievalModel:
        """Set the mode; the encoder stays in evaluation mode, since it is frozen."""
        super().train(mode)
        self.encoder.eval()
        return self

    def find_positions(self) -> None:
        """Find the directions of position of the encoder's present weights; done before the bank is filled."""
        if len(self.position_basis):
            self.position_basis.copy_(position_basis(self.encoder, len(self.position_basis)))

    def extract(self, images: torch.Tensor) -> torch.Tensor:
        """Return embeddings of unit length ``[B, P, D]`` of normalised images ``[B, C, H, W]``.

        P is 1 where whole images are retrieved; D is twice the encoder's with a context.
        """
        with torch.no_grad():
            embeddings = unit_embeddings(self.encoder, images, self.retrieval)
            if len(self.position_basis):
                embeddings = without_directions(embeddings, self.position_basis)
            embeddings = functional.normalize(embeddings, dim=-1, eps=1e-6)
            return with_context(embeddings, self.grid_size, self.context) if self.context else embeddings

    def fill(
        self,
        images: torch.Tensor,
        masks: torch.Tensor,
        devices: list[str],
        names: list[str],
        shifts: int | None = None,
    ) -> None:
        """Put normalised labelled images into the bank; searched after ``bank.finish()``.

        They are put in on ``shifts`` grids, a number of `shifts.SHIFTS`, in place of ``bank_shifts``.
        """
        if len(self.position_basis) and not bool(self.position_basis.any()):
            self.find_positions()
        for grid, offset in enumerate(shift_offsets(shifts or self.bank_shifts, self.patch_size)):
            embeddings = self.extract(shifted_images(images, [offset]))
            self.bank.add(embeddings, shifted_masks(masks, offset), devices, names, grid)

    def forward(self, images: torch.Tensor) -> InferenceBatch:
        """Return class indices ``[B, 1, H, W]`` uint8, novelty ``[B, 1, H, W]`` in [0, 2] and its maximum ``[B]``.

        Args:
            images: Normalised images ``[B, C, H, W]`` of the encoder's input size.

        Raises:
            RuntimeError: If the bank is empty.
        """
        return self.answer(self.embed(images))

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """Return the embeddings ``[S * B, P, D]`` of the crops of images ``[B, C, H, W]`` on the S grids of a query."""
        crops = shifted_images(images, shift_offsets(self.query_shifts, self.patch_size))
        return mark("patch_embeddings", self.extract(crops))

    def answer(self, embeddings: torch.Tensor) -> InferenceBatch:
        """Return what `forward` returns, of embeddings ``[S * B, P, D]`` that `extract` gave of the crops on S grids.

        Raises:
            RuntimeError: If the bank is empty.
        """
        return self.answer_with_scores(embeddings)[0]

    def answer_with_scores(self, embeddings: torch.Tensor) -> tuple[InferenceBatch, torch.Tensor]:
        """Return what `answer` returns, and the votes for each class, ``[Q, L, C]`` or ``[Q, 1, C]``, Q = B * P.

        With several grids or smoothing they are the shares of the vote that decided.

        Raises:
            RuntimeError: If the bank is empty.
        """
        rows, columns = self.grid_size
        similarities, neighbours, weights = self.vote(embeddings.flatten(0, 1))  # [S * B * P, k] each
        scores = self.class_votes(weights, neighbours)
        novelty = 1.0 - similarities[:, 0].reshape(-1, 1, rows, columns)  # [S * B, 1, rows, columns]
        size = self.encoder.image_size
        novelty_map = functional.interpolate(novelty, size=size, mode="bilinear", align_corners=False)
        if self.query_shifts > 1:
            scores = self._mean_shares(scores)
            novelty = novelty_map = mean_over_grids(novelty_map, shift_offsets(self.query_shifts, self.patch_size))
        elif self.smoothing:
            shares = smooth_shares(scores.transpose(1, 2), self.grid_size, self.patch_size, self.smoothing)
            scores = mark("smooth_shares", shares).transpose(1, 2).contiguous()  # the largest is found faster
        batch = InferenceBatch(
            pred_score=novelty.amax(dim=(1, 2, 3)),
            anomaly_map=novelty_map,
            pred_mask=self._pixels(winners(scores, self._thresholds)),
        )
        return batch, scores

    def uncertainty(self, batch: InferenceBatch, scores: torch.Tensor) -> torch.Tensor:
        """Return the uncertainty ``[B, 1, H, W]`` in [0, 1] of what `answer_with_scores` gave."""
        novelty: Any = batch.anomaly_map
        return uncertainty_of(self._pixels(winning_share(scores)), novelty)

    def _pixels(self, patches: torch.Tensor) -> torch.Tensor:
        """Return ``[B, 1, H, W]`` of values ``[Q, L]`` of the pixels of patches, or of whole patches ``[Q, 1]``."""
        grid, patch = self.grid_size, self.patch_size
        every = patches.expand(-1, patch[0] * patch[1]).unflatten(0, (-1, grid[0] * grid[1]))  # [B, P, L]
        return patches_to_image(every, grid, patch).unsqueeze(1)

    def vote(self, queries: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the similarity, the row and the weight ``[Q, k]`` of each neighbour of queries ``[Q, D]``.

        Raises:
            RuntimeError: If the bank is empty.
        """
        if not len(self.bank):
            msg = "The memory bank is empty: train on labelled images first, or load a checkpoint (ckpt_path)."
            raise RuntimeError(msg)
        find = exact_search if torch.compiler.is_exporting() else self.search  # an export has no FAISS
        similarities, neighbours = find(mark("queries", queries), self.bank.embeddings, self.k)
        similarities, neighbours = mark("similarities", similarities), mark("neighbours", neighbours)
        temperatures = class_values(self.class_temperatures, self.bank.class_names, self.temperature)
        if temperatures is None:
            weights = vote_weights(similarities, self.aggregation, self.temperature)
        else:
            weights = class_weights(similarities, temperatures)
        counts = self.bank.row_counts() if is_marking() else self.bank.counts  # a bank that is exported may get some
        if len(counts):
            times = repetitions(mark("neighbour_counts", counts[neighbours]), self.k, self.aggregation)  # [Q, k]
            weights = weights * (times if weights.ndim == 2 else times.unsqueeze(-1))
        return similarities, neighbours, mark("vote_weights", weights)

    def class_votes(self, weights: torch.Tensor, neighbours: torch.Tensor) -> torch.Tensor:
        """Return the votes for each class from the weights and rows of the neighbours, as `vote` returned them.

        ``[Q, L, C]`` for each pixel of a patch; ``[Q, 1, C]`` where patches have the classes of their averages.
        """
        if self.labels == "complete" and not torch.compiler.is_exporting():
            # In blocks, whose votes stay in the processor's cache.
            parts = zip(weights.split(LABEL_BLOCK), neighbours.split(LABEL_BLOCK), strict=True)
            return torch.cat([class_votes(part, self.bank.labels[rows], self.num_classes) for part, rows in parts])
        # What is marked comes before the last transposition: [Q, C, L], or [Q, C, 1].
        if self.labels == "complete":
            labels = mark("neighbour_labels", self.bank.labels[neighbours])
            return mark("class_votes", votes_by_class(weights, labels, self.num_classes)).transpose(1, 2)
        shares = mark("neighbour_shares", class_shares(self.bank.labels, self.num_classes)[neighbours])  # [Q, k, C]
        return mark("class_votes", average_votes(weights, shares).unsqueeze(2)).transpose(1, 2)

    def _mean_shares(self, votes: torch.Tensor) -> torch.Tensor:
        """Return each class's mean share of the votes ``[B * P, L, C]`` over the grids, of votes ``[S * B * P, L, C]``.

        Each grid that sees a pixel has the same say: its votes for the classes are divided by their sum. The means are
        smoothed.
        """
        (rows, columns), patch = self.grid_size, self.patch_size
        shares = vote_shares(votes.transpose(1, 2)).expand(-1, -1, patch[0] * patch[1])  # [S * B * P, C, L]
        offsets = shift_offsets(self.query_shifts, patch)
        maps = mean_over_grids(class_maps(shares, (rows, columns), patch), offsets)  # [B, C, H, W]
        blocks = smoothed(maps, self.smoothing).unflatten(2, (rows, patch[0])).unflatten(4, (columns, patch[1]))
        # Not transposed from [Q, C, L]: what is transposed back afterwards is not in the exported graph.
        return mark("mean_shares", blocks.permute(0, 2, 4, 3, 5, 1).flatten(3, 4).flatten(0, 2))

    @property
    def _thresholds(self) -> list[float] | None:
        """Share of the vote that each class needs; None where any suffices."""
        return class_values(self.class_thresholds, self.bank.class_names, 0.0)
