# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Why a pixel or a region is of its class: a trained model's votes, as `bank.explaining` tells them."""

from __future__ import annotations

from typing import Any

import torch

from anomalib_aoissl.bank.explaining import Answer, Explanation, Neighbours, Vote, asked_patches, explained

from ..torch_model import RetrievalModel


def explain(model: RetrievalModel, image: torch.Tensor, pixel: tuple[int, int]) -> list[Vote]:
    """Return the bank's votes for a pixel, the most similar patch first.

    Without a pixel head the class with the largest weight is the pixel's; with one, see `Explanation.differs`.

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
    region = torch.zeros(height, width, dtype=torch.bool)
    region[pixel] = True
    return sorted(explain_region(model, image, region).votes, key=lambda vote: -vote.similarity)


@torch.no_grad()
def explain_region(model: RetrievalModel, image: torch.Tensor, region: torch.Tensor) -> Explanation:
    """Return why the pixels of a region are of their classes, see `bank.explaining.explained`.

    Args:
        model: Model with a filled bank.
        image: Normalised image ``[C, H, W]`` of the encoder's input size.
        region: ``[H, W]`` bool.

    Raises:
        ValueError: If the region is of another size, or empty.
        RuntimeError: If the bank is empty.
    """
    if tuple(region.shape) != tuple(model.encoder.image_size) or not bool(region.any()):
        height, width = model.encoder.image_size
        msg = (
            f"The region must be a mask of {height}x{width} px with a pixel in it; got {tuple(region.shape)} with "
            f"{int(region.sum())} pixels."
        )
        raise ValueError(msg)
    batch, share = model.answer(image[None])
    asked = asked_patches(region.numpy(), model.patch_size)
    voted = model.vote(model.read(image[None]).embeddings[0][torch.from_numpy(asked)])
    maps: list[Any] = [batch.pred_mask, batch.anomaly_map, model.uncertainty(batch, share)]
    answer = Answer(model.abstention.threshold, *(values[0, 0].numpy() for values in maps))
    neighbours = Neighbours(*(values.numpy() for values in voted))
    return explained(model.bank.content(), neighbours, region.numpy(), answer, model.patch_size)
