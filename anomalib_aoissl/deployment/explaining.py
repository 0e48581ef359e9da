# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Which labelled patches decided on pixels of an image, asked of an exported model; needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from anomalib_aoissl.bank.explaining import Answer, Explanation, asked_patches, explained, voting_neighbours
from anomalib_aoissl.visualization.explanation_picture import draw_explanation, reader_of
from anomalib_aoissl.visualization.overlay import picture_of

from .graph.bank import bank_of, settings_of
from .images import resize_region

if TYPE_CHECKING:
    from PIL.Image import Image

    from .inferencer import SegmentationOpenVINOInferencer


def region_of(where: np.ndarray | tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Return a region ``[H, W]`` bool of an image of (height, width) px.

    Args:
        where: The region itself, or one pixel as (row, column).
        size: Of the image.

    Raises:
        ValueError: If it is of another size, empty, or lies outside.
    """
    if not isinstance(where, np.ndarray):
        row, column = where
        if not (0 <= row < size[0] and 0 <= column < size[1]):
            msg = f"region={where} lies outside of the image of {size[0]}x{size[1]} px; give (row, column) from (0, 0)."
            raise ValueError(msg)
        region = np.zeros(size, dtype=bool)
        region[row, column] = True
        return region
    if where.shape != size or not where.any():
        msg = (
            f"region must be a mask of the image's {size[0]}x{size[1]} px (height x width) with a pixel in it; got "
            f"{where.shape} with {np.count_nonzero(where)} pixels."
        )
        raise ValueError(msg)
    return where.astype(bool)


def explanation(
    model: Any, embeddings: np.ndarray, region: np.ndarray, maps: Sequence[np.ndarray], threshold: float | None
) -> Explanation:
    """Return why the pixels of a region are of their classes.

    Args:
        model: `openvino.Model`.
        embeddings: ``[P, D]`` of the image's patches, in row-major order.
        region: ``[H, W]`` bool of the image's own size, not empty.
        maps: Class indices, novelty and uncertainty ``[h, w]`` of the model's size.
        threshold: Uncertainty above which the model abstains; None where it never does.

    Raises:
        NotEditableError: If the model has no bank.
    """
    bank, settings = bank_of(model), settings_of(model)
    region = resize_region(region, settings.image_size)
    queries = embeddings[asked_patches(region, settings.patch_size)]
    neighbours = voting_neighbours(bank, queries, settings.k, settings.aggregation, settings.temperature)
    return explained(bank, neighbours, region, Answer(threshold, *maps), settings.patch_size)


def explain_with_picture(
    inferencer: SegmentationOpenVINOInferencer, image: str | Path | np.ndarray, region: np.ndarray, votes: int
) -> tuple[Explanation, Image]:
    """Return what `SegmentationOpenVINOInferencer.explain` returns, and a picture of it with so many votes.

    Labelled images are shown where their files are still found under their names.
    """
    planes, model = inferencer._read(image), inferencer._model
    reason, class_map = inferencer._explained(planes, region)
    labels = bank_of(model).entries["labels"][[vote.entry for vote in reason.votes[:votes]]]
    patches = labels.reshape(-1, *settings_of(model).patch_size)
    read, names = reader_of(inferencer.file_format), inferencer.class_names
    return reason, draw_explanation(reason, picture_of(planes), class_map, names, patches, read)
