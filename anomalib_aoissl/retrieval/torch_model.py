# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The retrieval model as tensors: extract tokens, match them with the bank, tell the classes of pixels."""

from __future__ import annotations

from typing import Any

import torch
from anomalib.data import InferenceBatch
from torch import nn
from torch.nn import functional

from anomalib_aoissl.bank.patches import patches_to_image
from anomalib_aoissl.deployment.abstaining import uncertainty_of
from anomalib_aoissl.deployment.graph.joint import JOINT, LEAST_VOTE
from anomalib_aoissl.encoder.base import Encoder, EncoderMaps, of_unit_length
from anomalib_aoissl.matching.aggregation import class_votes, repetitions, vote_weights
from anomalib_aoissl.matching.faiss_search import FaissSearch, check_faiss
from anomalib_aoissl.matching.searching import search as exact_search
from anomalib_aoissl.models.protocols import UntrainedError
from anomalib_aoissl.pixel_head.head import PixelHead
from anomalib_aoissl.pixel_head.learning.views import EVERY_WAY, Variation
from anomalib_aoissl.pixel_head.marking import is_marking, mark

from .abstention import Abstention
from .memory.bank_size import check_head, entry_size
from .memory.memory_bank import MemoryBank
from .options import VoteOptions

LABEL_BLOCK = 64
"""Queries whose neighbours' labels are combined at once outside of an export."""


class RetrievalModel(nn.Module):
    """Frozen encoder, memory bank and pixel head: normalised images to class indices and novelty.

    The labels of a query patch are those of its k most similar entries, weighted by a softmax over their cosine
    similarities, pixel by pixel [0][1]. Where a pixel head is fitted, its class probabilities are multiplied by those
    of the vote, a product of experts [2]: the head knows borders, and the vote what was labelled. Novelty is the bank's
    in both cases. Nothing here branches or loops on the number of queries: the exported graph takes any batch.

    [0]: AOI-SSL, 2026, arXiv 2605.12430. [1]: Towards In-context Scene Understanding, 2023, arXiv 2306.01667; differs
    in that labels stay at pixel resolution and the softmax is over k neighbours. [2]: Hinton, Training Products of
    Experts by Minimizing Contrastive Divergence, 2002.

    Args:
        encoder: The encoder; it is frozen.
        vote: Which entries vote and how; a bank of fewer than k entries lets all of them vote.
        bank: The bank, of this encoder's embeddings and `entry_size`; an empty one of any size where none is given.
        head: Whether there is a pixel head; not where whole images are compared.
        abstain: Share of the calibration's pixels that may be abstained from; None for no abstention.
        varied: How views of a labelled image differ from it, from which the head learns.

    Raises:
        ValueError: If there is a head where whole images are compared.
        ModuleNotFoundError: If the search needs FAISS and it is not installed.
    """

    def __init__(
        self,
        encoder: Encoder,
        vote: VoteOptions | None = None,
        *,
        bank: MemoryBank | None = None,
        head: bool = False,
        abstain: float | None = None,
        varied: Variation = EVERY_WAY,
    ) -> None:
        super().__init__()
        vote = VoteOptions() if vote is None else vote
        check_head(vote.level, head)
        check_faiss(vote.search)
        self.encoder = encoder.requires_grad_(False)
        self.encoder.eval()
        self.patch_size = entry_size(encoder, vote.level)
        self.bank = MemoryBank(encoder.embed_dim, self.patch_size) if bank is None else bank
        self.vote_options = vote
        self.search = exact_search if vote.search == "exact" else FaissSearch(vote.search)
        self.head: PixelHead | None = PixelHead() if head else None
        self.abstention = Abstention(abstain)
        self.varied = varied

    @property
    def grid_size(self) -> tuple[int, int]:
        """Patches of an image that are compared, (rows, columns); (1, 1) where whole images are."""
        (height, width), patch = self.encoder.image_size, self.patch_size
        return height // patch[0], width // patch[1]

    @property
    def embedding_options(self) -> dict[str, Any]:
        """What beside the encoder and the light decides the embeddings, as plain data for `encoder_hash`."""
        level = self.vote_options.level  # "retrieval" in hashes since 0.1.0
        return {} if level == "patches" else {"retrieval": level}

    @property
    def num_classes(self) -> int:
        """Classes that the bank's labels may name."""
        return len(self.bank.class_names)

    @property
    def has_fitted_head(self) -> bool:
        """Whether a pixel head decides the classes of pixels together with the vote."""
        return self.head is not None and self.head.fitted

    def check_trained(self) -> None:
        """Validate that there is a labelled patch to compare with.

        Raises:
            UntrainedError: If the bank is empty.
        """
        if not len(self.bank):
            msg = "The memory bank is empty: train on labelled images first, or load a checkpoint (ckpt_path)."
            raise UntrainedError(msg)

    def train(self, mode: bool = True) -> RetrievalModel:
        """Set the mode; the encoder stays in evaluation mode, since it is frozen."""
        super().train(mode)
        self.encoder.eval()
        return self

    def read(self, images: torch.Tensor) -> EncoderMaps:
        """Return embeddings of unit length and tokens of normalised images ``[B, C, H, W]``; P is 1 for whole ones."""
        with torch.no_grad():
            embeddings, tokens = self.encoder.read(images)
            if self.vote_options.level == "images":
                embeddings = embeddings.mean(dim=1, keepdim=True)
            embeddings = of_unit_length(embeddings, dim=-1)
            return EncoderMaps(embeddings, tokens if self.head is None else mark("tokens", tokens))

    def fill(
        self, images: torch.Tensor, masks: torch.Tensor, devices: list[str], names: list[str], tile: int = 0
    ) -> None:
        """Put normalised labelled images, or tiles of one number, into the bank; searched after ``bank.finish()``."""
        first = tile * self.grid_size[0] * self.grid_size[1]
        self.bank.add(self.read(images).embeddings, masks, devices, names, first)

    def forward(self, images: torch.Tensor) -> InferenceBatch:
        """Return class indices ``[B, 1, H, W]`` uint8, novelty ``[B, 1, H, W]`` in [0, 2] and its maximum ``[B]``.

        Args:
            images: Normalised images ``[B, C, H, W]`` of the encoder's input size.

        Raises:
            UntrainedError: If the bank is empty.
        """
        return self.answer(images)[0]

    def answer(self, images: torch.Tensor) -> tuple[InferenceBatch, torch.Tensor]:
        """Return what `forward` returns, and the probability ``[B, 1, H, W]`` of the class that each pixel was given.

        Raises:
            UntrainedError: If the bank is empty.
        """
        reading = self.read(images)
        mark("patch_embeddings", reading.embeddings)
        votes, novelty = self.ask(reading.embeddings)
        if self.has_fitted_head:
            classes = mark(JOINT, self.joint(self.head_probabilities(images, reading.tokens), votes))
            share, mask = classes.amax(dim=1, keepdim=True), classes.argmax(dim=1, keepdim=True).to(torch.uint8)
        else:
            mask = self.pixels(votes.argmax(dim=1).to(torch.uint8))
            share = self.pixels(votes.amax(dim=1) / votes.sum(dim=1).clamp(min=1e-9))
        batch = InferenceBatch(
            pred_score=novelty.amax(dim=(1, 2, 3)),
            anomaly_map=self.enlarged(novelty),
            pred_mask=mask,
        )
        return batch, share

    def maps(self, images: torch.Tensor) -> torch.Tensor:
        """Return class probabilities and, after them, the novelty ``[B, C + 1, H, W]`` of normalised images.

        Raises:
            UntrainedError: If the bank is empty.
        """
        reading = self.read(images)
        votes, novelty = self.ask(reading.embeddings)
        if self.has_fitted_head:
            classes = self.joint(self.head_probabilities(images, reading.tokens), votes)
        else:
            classes = self.pixel_probabilities(votes)
        return torch.cat([classes, self.enlarged(novelty)], dim=1)

    def head_probabilities(self, images: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Return the pixel head's class probabilities ``[B, C, H, W]``."""
        assert self.head is not None  # noqa: S101 - for the type checker; asked of models with a head
        probabilities: torch.Tensor = self.head(images, tokens)
        return probabilities

    def joint(self, head: torch.Tensor, votes: torch.Tensor) -> torch.Tensor:
        """Return the class probabilities ``[B, C, H, W]`` that those of the head and the votes ``[Q, C, L]`` give."""
        return joint_probabilities(head, self.pixel_probabilities(votes))

    def pixel_probabilities(self, votes: torch.Tensor) -> torch.Tensor:
        """Return the class probabilities ``[B, C, H, W]`` of votes ``[Q, C, L]``."""
        probabilities = votes / votes.sum(dim=1, keepdim=True).clamp(min=1e-9)
        return torch.cat([self.pixels(probabilities[:, index]) for index in range(self.num_classes)], dim=1)

    def ask(self, embeddings: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the votes ``[Q, C, L]`` for the pixels of each patch, and the novelty ``[B, 1, rows, columns]``.

        Args:
            embeddings: ``[B, P, D]``; Q = B * P.

        Raises:
            UntrainedError: If the bank is empty.
        """
        similarities, neighbours, weights = self.vote(embeddings.flatten(0, 1))  # [Q, k] each
        nearest = similarities[:, 0].reshape(-1, 1, *self.grid_size)
        return self.class_votes(weights, neighbours), self.novelty(nearest)

    def novelty(self, nearest: torch.Tensor) -> torch.Tensor:
        """Return the novelty ``[B, 1, rows, columns]`` of patches, given the similarity of each to its nearest entry.

        Patches at the border have that of the patches inside: their embeddings differ from all others because the image
        ends there, and would hide what is new in it.
        """
        novelty, border = 1.0 - nearest, self.encoder.border
        if not border or min(self.grid_size) <= 2 * border:
            return novelty
        inside = slice(border, -border)
        return functional.pad(novelty[..., inside, inside], (border,) * 4, mode="replicate")

    def enlarged(self, novelty: torch.Tensor) -> torch.Tensor:
        """Return the novelty ``[B, 1, rows, columns]`` of patches at the image's pixels, bilinear."""
        return functional.interpolate(novelty, size=self.encoder.image_size, mode="bilinear", align_corners=False)

    def pixels(self, patches: torch.Tensor) -> torch.Tensor:
        """Return ``[B, 1, H, W]`` of values ``[Q, L]`` of the pixels of patches."""
        grid, patch = self.grid_size, self.patch_size
        every = patches.unflatten(0, (-1, grid[0] * grid[1]))  # [B, P, L]
        return patches_to_image(every, grid, patch).unsqueeze(1)

    def neighbours(self, queries: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the similarities ``[Q, k]``, the largest first, and the entries of neighbours of ``[Q, D]``.

        Raises:
            UntrainedError: If the bank is empty.
        """
        self.check_trained()
        find = exact_search if torch.compiler.is_exporting() else self.search  # an export has no FAISS
        similarities, neighbours = find(mark("queries", queries), self.bank.embeddings, k)
        return mark("similarities", similarities), mark("neighbours", neighbours)

    def vote(self, queries: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the similarity, the entry and the weight ``[Q, k]`` of each neighbour of queries ``[Q, D]``.

        Raises:
            UntrainedError: If the bank is empty.
        """
        vote = self.vote_options
        similarities, neighbours = self.neighbours(queries, vote.k)
        weights = vote_weights(similarities, vote.aggregation, vote.temperature)
        counts = self.bank.entry_counts() if is_marking() else self.bank.counts  # a bank that is exported may get some
        if len(counts):
            weights = weights * repetitions(mark("neighbour_counts", counts[neighbours]), vote.k, vote.aggregation)
        return similarities, neighbours, mark("vote_weights", weights)

    def class_votes(self, weights: torch.Tensor, neighbours: torch.Tensor) -> torch.Tensor:
        """Return the votes ``[Q, C, L]`` from the weights and entries of the neighbours, as `vote` returned them."""
        if torch.compiler.is_exporting():
            labels = mark("neighbour_labels", self.bank.labels[neighbours])
            return mark("class_votes", class_votes(weights, labels, self.num_classes))
        # In blocks, whose votes stay in the processor's cache.
        parts = zip(weights.split(LABEL_BLOCK), neighbours.split(LABEL_BLOCK), strict=True)
        return torch.cat([class_votes(part, self.bank.labels[entries], self.num_classes) for part, entries in parts])

    def uncertainty(self, batch: InferenceBatch, share: torch.Tensor) -> torch.Tensor:
        """Return the uncertainty ``[B, 1, H, W]`` in [0, 1] of what `answer` gave."""
        novelty = batch.anomaly_map
        assert novelty is not None  # noqa: S101 - for the type checker; `answer` gave it
        return uncertainty_of(share, novelty, int(self.abstention.power))


def joint_probabilities(head: torch.Tensor, vote: torch.Tensor) -> torch.Tensor:
    """Return the class probabilities ``[N, C, ...]`` of head and vote together, of those of each, in the same shape."""
    joint = head * (vote + LEAST_VOTE)
    return joint / joint.sum(dim=1, keepdim=True)
