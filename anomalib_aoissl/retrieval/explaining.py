# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Why a pixel is of its class: the labelled patches that voted for it, as data."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from anomalib_aoissl.data.indices import IGNORE_INDEX

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
    place.

    Args:
        model: Model with a filled bank.
        image: Normalised image ``[C, H, W]`` of the encoder's input size.
        pixel: (row, column), px.

    Raises:
        ValueError: If the pixel lies outside of the image.
        RuntimeError: If the bank is empty.
    """
    (height, width), (patch_height, patch_width) = model.encoder.image_size, model.encoder.patch_size
    if not (0 <= pixel[0] < height and 0 <= pixel[1] < width):
        msg = f"pixel={pixel} lies outside of the image of {height}x{width} px; give (row, column) from (0, 0)."
        raise ValueError(msg)
    columns = model.encoder.grid_size[1]
    index = pixel[0] // patch_height * columns + pixel[1] // patch_width
    place = pixel[0] % patch_height * patch_width + pixel[1] % patch_width
    with torch.no_grad():
        similarities, rows, weights = (t[0] for t in model.vote(model.extract(image[None])[0, index : index + 1]))
    bank = model.bank
    labels = bank.labels[rows, place].tolist()
    counts = bank.counts[rows].tolist() if len(bank.counts) else [1] * len(labels)
    return [
        Vote(
            image=bank.image_names[int(bank.image_ids[row])],
            device=bank.device_names[int(bank.device_ids[row])],
            box=(
                int(bank.positions[row]) // columns * patch_height,
                int(bank.positions[row]) % columns * patch_width,
                patch_height,
                patch_width,
            ),
            similarity=float(similarities[position]),
            weight=float(weights[position] / weights.sum()),
            label="" if labels[position] == IGNORE_INDEX else bank.class_names[labels[position]],
            patches=counts[position],
        )
        for position, row in enumerate(rows.tolist())
    ]
