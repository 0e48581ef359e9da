# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Why a pixel is of its class: the labelled patches that voted for it, as data."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from anomalib_aoissl.data.indices import IGNORE_INDEX

from .shifts import patch_box, shift_offsets, shifted_images
from .torch_model import RetrievalModel


@dataclass(frozen=True)
class Vote:
    """What one labelled patch said of a pixel.

    Attributes:
        image: Name of the labelled image.
        device: Its device.
        box: (top, left, height, width) of the patch in the image at the encoder's input size, px.
        similarity: Cosine similarity to the patch of the pixel.
        weight: Share of all votes, 0 to 1.
        label: Name of the class that it has at the pixel's place in the patch; empty where it is ignored there.
        patches: Patches that it stands for in a condensed bank.
    """

    image: str
    device: str
    box: tuple[int, int, int, int]
    similarity: float
    weight: float
    label: str
    patches: int


def explain(model: RetrievalModel, image: torch.Tensor, pixel: tuple[int, int]) -> list[Vote]:
    """Return the votes for a pixel, the most similar patch first; the class with the largest weight is the pixel's.

    With ``labels="average"`` the pixel has the class of its whole patch, and a vote's label is still the one at its
    place. With ``query_shifts`` the votes are those of each grid that sees the pixel, all with the same say. A class
    that needs a share of the vote (``class_thresholds``) and has less does not get the pixel.

    Args:
        model: Model with a filled bank.
        image: Normalised image ``[C, H, W]`` of the encoder's input size.
        pixel: (row, column), px.

    Raises:
        ValueError: If the pixel lies outside of the image.
        RuntimeError: If the bank is empty.
    """
    height, width = model.encoder.image_size
    if not (0 <= pixel[0] < height and 0 <= pixel[1] < width):
        msg = f"pixel={pixel} lies outside of the image of {height}x{width} px; give (row, column) from (0, 0)."
        raise ValueError(msg)
    offsets = shift_offsets(model.query_shifts, model.patch_size)
    seeing = [offset for offset in offsets if pixel[0] >= offset[0] and pixel[1] >= offset[1]]
    votes = [vote for offset in seeing for vote in _votes_on_grid(model, image, pixel, offset)]
    total = len(seeing)
    votes = [replace(vote, weight=vote.weight / total) for vote in votes]
    return sorted(votes, key=lambda vote: -vote.similarity)


def _votes_on_grid(
    model: RetrievalModel, image: torch.Tensor, pixel: tuple[int, int], offset: tuple[int, int]
) -> list[Vote]:
    """Return the votes for a pixel of the patch that it lies in on a grid, with weights that sum to 1."""
    patch_height, patch_width = model.patch_size
    row, column = pixel[0] - offset[0], pixel[1] - offset[1]
    index = row // patch_height * model.grid_size[1] + column // patch_width
    place = row % patch_height * patch_width + column % patch_width
    with torch.no_grad():
        queries = model.extract(shifted_images(image[None], [offset]))[0, index : index + 1]
        similarities, rows, weights = (t[0] for t in model.vote(queries))  # [k] each
    bank = model.bank
    labels = bank.labels[rows, place]
    if weights.ndim == 2:  # [k, C]: a vote weighs as much as votes for its class do
        known = labels.long().clamp(max=model.num_classes - 1)
        weights = weights.gather(1, known[:, None])[:, 0] * (labels != IGNORE_INDEX)
    weights = weights / weights.sum().clamp(min=1e-12)
    counts = bank.counts[rows].tolist() if len(bank.counts) else [1] * len(labels)
    return [
        Vote(
            image=bank.image_names[int(bank.image_ids[row])],
            device=bank.device_names[int(bank.device_ids[row])],
            box=patch_box(int(bank.positions[row]), model.encoder.image_size, model.patch_size),
            similarity=float(similarities[position]),
            weight=float(weights[position]),
            label="" if int(labels[position]) == IGNORE_INDEX else bank.class_names[int(labels[position])],
            patches=counts[position],
        )
        for position, row in enumerate(rows.tolist())
    ]
