# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Why a pixel or a region is of its class: a trained model's votes, as `bank.explaining` tells them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from anomalib_aoissl.bank.explaining import Answer, AskedModel, Box, Explanation, Neighbours
from anomalib_aoissl.deployment.tiles.explaining import explained_tiles, tiled_places
from anomalib_aoissl.deployment.tiles.tiling import Tiling

from ..torch_model import RetrievalModel


@torch.no_grad()
def explain_region(
    model: RetrievalModel,
    image: torch.Tensor,
    region: torch.Tensor,
    tiling: Tiling | None = None,
    shown: Box | None = None,
) -> tuple[Explanation, np.ndarray]:
    """Return why the pixels of a region are of their classes, and class indices ``[H, W]`` uint8 of the image.

    Args:
        model: Model with a filled bank.
        image: Normalised image ``[C, H, W]`` of the encoder's input size; with tiles of any size.
        region: ``[H, W]`` bool.
        tiling: How images are cut; then classes are those of the tiles that are asked, and 0 elsewhere.
        shown: With tiles, the box around the region whose classes are asked for as well.

    Raises:
        ValueError: If the region is of another size, or empty.
        RuntimeError: If the bank is empty.
    """
    height, width = model.encoder.image_size if tiling is None else image.shape[-2:]
    if tuple(region.shape) != (height, width) or not bool(region.any()):
        msg = (
            f"The region must be a mask of {height}x{width} px with a pixel in it; got {tuple(region.shape)} with "
            f"{int(region.sum())} pixels."
        )
        raise ValueError(msg)
    asked, planes = _asked(model, tiling), image.as_subclass(torch.Tensor).numpy()
    if tiling is None:
        return asked.explain(planes, region.numpy())
    return explained_tiles(asked, planes, region.numpy(), tiling, shown)


def _asked(model: RetrievalModel, tiling: Tiling | None) -> AskedModel:
    """Return a model as one that is asked for reasons, for normalised images ``[C, H, W]`` of its input size."""

    def answer(image: np.ndarray) -> Answer:
        batch, share = model.answer(_batch(image))
        maps: list[Any] = [batch.pred_mask, batch.anomaly_map, model.uncertainty(batch, share)]
        return Answer(model.abstention.threshold, *(values[0, 0].numpy() for values in maps))

    def neighbours(image: np.ndarray, patches: np.ndarray) -> Neighbours:
        embeddings = model.read(_batch(image)).embeddings[0]
        return Neighbours(*(values.numpy() for values in model.vote(embeddings[torch.from_numpy(patches)])))

    places = tiled_places(tiling, model.encoder.image_size, model.patch_size)
    return AskedModel(model.bank.content(), model.patch_size, places, answer, neighbours)


def _batch(image: np.ndarray) -> torch.Tensor:
    """Return the image ``[C, H, W]`` as a batch of one."""
    return torch.from_numpy(np.ascontiguousarray(image))[None]
