# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Labelled images as views with drawn pixels: what a fit of the pixel head reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..autocontext import context_maps
from ..head import PixelHead
from ..points import context_values, draw_points, pixel_values
from ..stored import stored_values
from .sample import FOLDS, PixelSample
from .views import EVERY_WAY, Variation, symmetric_view, view, view_light, views_of

PIXELS = 60_000
"""Pixels that are drawn of all images together, and that a bank keeps."""

_TWICE = range(9, 25)
"""Numbers of labelled images of which twice as many pixels are drawn, in twice the steps. Fewer show no more; more are
seen in one view each, and time counts."""

_BLOCKS = 8
"""Blocks of a single image along each side."""

MOST_IMAGES = 64
"""Labelled images at most that a head is fitted to."""


@dataclass(frozen=True)
class TileSource:
    """What is known of the picture that a tile was cut from.

    Attributes:
        seen: Evenly taken pixels ``[1, C, h, w]`` in [0, 1], which tell its light.
        size: Its (height, width), px.
        corner: (row, column) of the tile's first pixel.
    """

    seen: torch.Tensor
    size: tuple[int, int]
    corner: tuple[int, int]


@dataclass(frozen=True)
class LabelledImage:
    """A labelled image of a fit.

    Attributes:
        image: ``[1, C, H, W]`` in [0, 1], of the model's size.
        mask: ``[H, W]`` class indices, 255 is ignored.
        device: Index of its device in the bank.
        name: Index of its name in the bank.
        picture: What it was cut from, where it is a tile; tiles of one name are one image.
    """

    image: torch.Tensor
    mask: torch.Tensor
    device: int
    name: int
    picture: TileSource | None = None


@dataclass(frozen=True)
class View:
    """A view of a labelled image, with the pixels that were drawn.

    Attributes:
        image: ``[1, C, H, W]``, as the model sees it.
        tokens: ``[1, D, rows, columns]``.
        mask: ``[H, W]`` class indices, 255 is ignored.
        parts: ``[H, W]``, the fold of each pixel, see `PixelSample`.
        points: ``[N, 2]`` (row, column).
        weights: ``[N]``, pixels that each stands for.
        source: The labelled image.
        plain: Whether it is under the image's own light.
    """

    image: torch.Tensor
    tokens: torch.Tensor
    mask: np.ndarray
    parts: np.ndarray
    points: np.ndarray
    weights: np.ndarray
    source: LabelledImage
    plain: bool

    @property
    def labels(self) -> np.ndarray:
        """Class indices ``[N]`` of the points."""
        return self.mask[self.points[:, 0], self.points[:, 1]]

    @property
    def folds(self) -> np.ndarray:
        """Folds ``[N]`` of the points."""
        return self.parts[self.points[:, 0], self.points[:, 1]]


@dataclass(frozen=True)
class Reader:
    """How a fit reads images.

    Attributes:
        see: Images ``[B, C, H, W]`` in [0, 1] to those that the model sees; of a tile, with pixels of its picture.
        tokens: Those to tokens ``[B, D, rows, columns]``.
        novelty: A view to the novelty ``[N]`` of its points against other images; NaN where there are none.
        seed: Of what is random.
        varied: How views differ from their image.
    """

    see: Callable[..., torch.Tensor]
    tokens: Callable[[torch.Tensor], torch.Tensor]
    novelty: Callable[[View], np.ndarray]
    seed: int = 0
    varied: Variation = EVERY_WAY


def labelled_views(images: Sequence[LabelledImage], reader: Reader, times: int = 1) -> Iterator[View]:
    """Give views of labelled images with the pixels that are drawn in each; every second one is under a drawn light.

    Args:
        images: The labelled images.
        reader: How they are read, and the seed.
        times: How many times `PIXELS` are drawn.
    """
    owners = [order if source.picture is None else (source.name,) for order, source in enumerate(images)]
    known = list(dict.fromkeys(owners))
    for order, source in enumerate(images):
        numbers = views_of(order, len(images))
        wanted = times * PIXELS // (len(numbers) * len(images))
        for index in numbers:
            random = np.random.default_rng([reader.seed, order, index])
            planes, labels = view(source.image[0].numpy(), source.mask.numpy(), index, random, reader.varied)
            points, weights = draw_points(labels, wanted, random)
            if not len(points):
                continue
            folds = _folds(source, known.index(owners[order]), len(known))
            parts = symmetric_view(planes, folds, index, reader.varied)[1]
            lights = [] if source.picture is None else [_light(source.picture, index, reader, order)]
            image = reader.see(torch.from_numpy(planes)[None], *lights)
            yield View(image, reader.tokens(image), labels, parts, points, weights, source, index % 2 == 0)


def effort(images: int) -> int:
    """Return how many times the usual pixels and steps a fit to so many labelled images takes."""
    return 2 if images in _TWICE else 1


def fold_map(order: int, images: int, size: tuple[int, ...]) -> np.ndarray:
    """Return the fold ``[H, W]`` of each pixel of an image.

    Images are dealt to three. A single one is cut into 8x8 blocks, which are dealt to two as the fields of a
    chessboard: its halves may show different classes, and then say nothing of another image.

    Args:
        order: Number of the image.
        images: How many there are.
        size: (height, width), px.
    """
    if images > 1:
        return np.full(size, order % FOLDS, np.uint8)
    rows, columns = np.indices(size)
    return ((_BLOCKS * rows // size[0] + _BLOCKS * columns // size[1]) % 2).astype(np.uint8)


def _folds(source: LabelledImage, order: int, images: int) -> np.ndarray:
    """Return the fold ``[H, W]`` of each pixel of an image, or of a tile those that its picture has there."""
    if source.picture is None:
        return fold_map(order, images, source.mask.shape)
    size = [max(side, tile) for side, tile in zip(source.picture.size, source.mask.shape, strict=True)]
    (top, left), (height, width) = source.picture.corner, source.mask.shape
    return fold_map(order, images, tuple(size))[top : top + height, left : left + width]


def _light(picture: TileSource, index: int, reader: Reader, order: int) -> torch.Tensor:
    """Return pixels ``[1, C, h, w]`` of a picture under the light of a view of its tile, the image of that number."""
    random = np.random.default_rng([reader.seed, order, index])
    return torch.from_numpy(view_light(picture.seen[0].numpy(), index, random, reader.varied))[None]


def view_values(head: PixelHead, view: View) -> np.ndarray:
    """Return the features ``[N, F]`` of a view's points."""
    features = head.features(view.image, view.tokens)
    return pixel_values(features.fine[0].numpy(), features.coarse[0].numpy(), view.points)


def view_context(head: PixelHead, view: View) -> np.ndarray:
    """Return the stored features of autocontext of a view's points, of the head's present first network."""
    probabilities = head.first(head.features(view.image, view.tokens))
    return context_values(probabilities[0].numpy(), context_maps(probabilities)[0].numpy(), view.points)


def sample_of_views(head: PixelHead, views: Sequence[View], values: np.ndarray, reader: Reader) -> PixelSample:
    """Return the sample of the views' points, without context, of their features ``[N, F]``."""
    counts = [len(view.points) for view in views]
    return PixelSample(
        values=stored_values(values, head.mean.numpy(), head.scale.numpy()),
        labels=np.concatenate([view.labels for view in views]).astype(np.uint8),
        device_ids=np.repeat([view.source.device for view in views], counts).astype(np.int32),
        image_ids=np.repeat([view.source.name for view in views], counts).astype(np.int32),
        weights=np.concatenate([view.weights for view in views]).astype(np.float32),
        novelty=np.concatenate([reader.novelty(view) for view in views]).astype(np.float32),
        folds=np.concatenate([view.folds for view in views]).astype(np.uint8),
        context=np.empty((len(values), 0), np.int8),
        basis=head.basis(),
    )
