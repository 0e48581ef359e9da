# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Which labelled patches decided on pixels of an image, asked of an exported model; needs no torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from anomalib_aoissl.bank.explaining import (
    Answer,
    AskedModel,
    Box,
    Explanation,
    Neighbours,
    box_around,
    voting_neighbours,
)
from anomalib_aoissl.visualization.explanation_picture import draw_explanation, reader_of, shown_around
from anomalib_aoissl.visualization.overlay import picture_of

from .abstaining import WINNING_PROBABILITY
from .graph.bank import NotEditableError, bank_of, read_metadata, settings_of
from .images import resize_region
from .tiles.explaining import explained_tiles, tiled_places
from .tiles.tiling import Tiling

if TYPE_CHECKING:
    import openvino
    from PIL.Image import Image

    from .inferencer import SegmentationOpenVINOInferencer


def region_of(where: np.ndarray | tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Return a region ``[H, W]`` bool of an image of (height, width) px.

    Args:
        where: The region itself, or one pixel as (row, column).
        size: Of the image.

    Raises:
        ValueError: If it is of another size, empty, lies outside, or is neither.
    """
    if not isinstance(where, np.ndarray):
        known = isinstance(where, tuple | list) and all(isinstance(place, int | np.integer) for place in where)
        if not known or len(where) != 2:
            msg = f"region={where!r} must be a pixel as (row, column) in whole numbers, or a mask [H, W] as an array."
            raise ValueError(msg)
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


def explain_planes(
    inferencer: SegmentationOpenVINOInferencer,
    planes: np.ndarray,
    region: np.ndarray | tuple[int, int],
    shown: Box | None = None,
) -> tuple[Explanation, np.ndarray]:
    """Return why the pixels of a region are of their classes, and class indices of the model's size.

    With tiles, they are of the picture's own size ``[H, W]``: those of the tiles that were asked, and 0 elsewhere.

    Args:
        inferencer: The inferencer.
        planes: The picture ``[C, H, W]``.
        region: Pixel as (row, column), or mask ``[H, W]`` that is not 0 in the region.
        shown: With tiles, the box around the region whose classes are asked for as well.

    Raises:
        NotEditableError: If the model has no bank.
        ValueError: If the region is none, or the answer is not finite.
    """
    loaded, threshold = inferencer._loaded, inferencer.threshold
    region = region_of(region, (planes.shape[1], planes.shape[2]))
    bank_of(loaded.model)  # before the work
    abstention, tiled, run = loaded.abstention, loaded.tiled, loaded.run
    if abstention is None:
        msg = "The model does not say how sure it is: it is of another version. Export it again."
        raise NotEditableError(msg)
    if tiled is not None:
        light = tiled.light_of(planes)

        def of_tile(tile: np.ndarray) -> Answer:
            return Answer(threshold, *tiled.reading(tile, light))

        asked = _asked(loaded.model, of_tile, lambda tile: inferencer._embeddings(tile, *light))
        return explained_tiles(asked, planes, region, tiled.tiling, shown)

    assert run is not None  # noqa: S101 - for the type checker; of whole pictures

    def of_picture(picture: np.ndarray) -> Answer:
        outputs = run(picture[np.newaxis])
        novelty = outputs["anomaly_map"][:, 0]
        uncertainty = abstention.uncertainty(outputs[WINNING_PROBABILITY], novelty)
        return Answer(threshold, outputs["pred_mask"][0, 0], novelty[0], uncertainty[0])

    asked = _asked(loaded.model, of_picture, inferencer._embeddings)
    return asked.explain(planes, resize_region(region, settings_of(loaded.model).image_size))


def _asked(
    model: openvino.Model, answer: Callable[[np.ndarray], Answer], embed: Callable[[np.ndarray], np.ndarray]
) -> AskedModel:
    """Return an exported model as one that is asked for reasons.

    Args:
        model: `openvino.Model`.
        answer: What it says of an image ``[C, H, W]``.
        embed: Gives the embeddings ``[P, D]`` of the image's patches, in row-major order.
    """
    bank, settings = bank_of(model), settings_of(model)

    def neighbours(image: np.ndarray, patches: np.ndarray) -> Neighbours:
        return voting_neighbours(bank, embed(image)[patches], settings.k, settings.aggregation, settings.temperature)

    places = tiled_places(_labelled_tiling(model), settings.image_size, settings.patch_size)
    return AskedModel(bank, settings.patch_size, places, answer, neighbours)


def explain_with_picture(
    inferencer: SegmentationOpenVINOInferencer, image: str | Path | np.ndarray, region: np.ndarray, votes: int
) -> tuple[Explanation, Image]:
    """Return what `SegmentationOpenVINOInferencer.explain` returns, and a picture of it with so many votes.

    Labelled images are shown where their files are still found under their names.
    """
    planes, model = inferencer._read(image), inferencer._model
    reason, class_map = explain_planes(inferencer, planes, region, shown_around(box_around(region), region.shape))
    labels = bank_of(model).entries["labels"][[vote.entry for vote in reason.votes[:votes]]]
    settings = settings_of(model)
    patches = labels.reshape(-1, *settings.patch_size)
    read, names = reader_of(inferencer.file_format), inferencer.class_names
    size = None if _labelled_tiling(model) is not None else settings.image_size
    return reason, draw_explanation(reason, picture_of(planes), class_map, names, patches, read, size)


def _labelled_tiling(model: openvino.Model) -> Tiling | None:
    """Return how the labelled pictures of an exported model were cut; None where they were resized as a whole."""
    return Tiling.of(read_metadata(model).get("tiling"))
