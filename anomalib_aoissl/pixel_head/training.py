# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Fitting the pixel head to labelled images: features, networks, and whether autocontext pays."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from .autocontext import context_maps
from .features import token_maps
from .filters import filter_counts
from .fitting import Layers, Schedule
from .head import PixelHead
from .points import context_values, draw_points, pixel_values
from .sample import PixelSample, mean_iou, stored_values
from .stages import Stages, each_unseen, first_probabilities, fit_first, fit_second, fold_of, second_probabilities
from .views import view as view_of
from .views import views_of

logger = logging.getLogger(__name__)

PIXELS = 60_000
"""Pixels that are drawn of all images together."""

_DIRECTIONS = 128
"""Directions of the tokens that are kept: those in which the labelled images' tokens differ most."""

Read = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class LabelledImage:
    """A labelled image of a fit.

    Attributes:
        image: ``[1, C, H, W]`` in [0, 1], of the model's size.
        mask: ``[H, W]`` class indices, 255 is ignored.
        device: Index of its device in the bank.
        name: Index of its name in the bank.
    """

    image: torch.Tensor
    mask: torch.Tensor
    device: int
    name: int


@dataclass(frozen=True)
class View:
    """A view of a labelled image, with the pixels that were drawn.

    Attributes:
        image: ``[1, C, H, W]``, as the model sees it.
        tokens: ``[1, D, rows, columns]``.
        points: ``[N, 2]`` (row, column).
        labels: ``[N]`` class indices.
        weights: ``[N]``, pixels that each stands for.
        source: The labelled image.
        plain: Whether it is the image as it is.
    """

    image: torch.Tensor
    tokens: torch.Tensor
    points: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    source: LabelledImage
    plain: bool


@torch.no_grad()
def fit_head(
    head: PixelHead,
    images: list[LabelledImage],
    classes: int,
    *,
    see: Read,
    read_tokens: Read,
    novelty: Callable[[View], np.ndarray],
    seed: int = 0,
) -> tuple[PixelSample, np.ndarray]:
    """Fit the head to labelled images; return the pixels that it was fitted to, and how sure ``[N]`` it is of each.

    How sure it is, the largest class probability, is that of a network that was fitted to other images.

    Args:
        head: The head; what it has is overwritten.
        images: The labelled images.
        classes: C.
        see: Images in [0, 1] to those that the model sees.
        read_tokens: Those to tokens ``[B, D, rows, columns]``.
        novelty: A view to the novelty ``[N]`` of its points against other images, NaN where there are none.
        seed: Of what is random.
    """
    views = list(labelled_views(images, see, read_tokens, seed))
    head.directions, head.centre = principal_directions([token_maps(view.tokens) for view in views])
    values = [_values(head, view) for view in views]
    mean, scale = _spread(np.concatenate(values), head.directions.shape[1])
    head.mean, head.scale = torch.from_numpy(mean), torch.from_numpy(scale)
    stored = stored_values(np.concatenate(values), mean, scale)
    sample = _sample(views, stored, [novelty(view) for view in views], head.basis())
    fine = filter_counts(views[0].image.shape[1])[0]
    fit = _Fit(head, sample, classes, Stages((), (), fine, head.directions.shape[1]), Schedule(seed=seed))
    return fit.run(views)


@torch.no_grad()
def sample_more(
    head: PixelHead,
    images: list[LabelledImage],
    *,
    see: Read,
    read_tokens: Read,
    novelty: Callable[[View], np.ndarray],
    seed: int = 0,
) -> PixelSample:
    """Return labelled pixels of images that a fitted head has not seen, with context where it has two networks.

    Arguments are those of `fit_head`.
    """
    views = list(labelled_views(images, see, read_tokens, seed))
    stored = [stored_values(_values(head, view), head.mean.numpy(), head.scale.numpy()) for view in views]
    sample = _sample(views, np.concatenate(stored), [novelty(view) for view in views], head.basis())
    if not head.has_autocontext:
        return sample
    return replace(sample, context=np.concatenate([_context(head, view) for view in views]))


def _context(head: PixelHead, view: View) -> np.ndarray:
    """Return the stored features of autocontext of a view's points, of the head's present first network."""
    probabilities = head.first(head.features(view.image, view.tokens))
    return context_values(probabilities[0].numpy(), context_maps(probabilities)[0].numpy(), view.points)


class _Fit:
    """The networks of a fit."""

    def __init__(
        self, head: PixelHead, sample: PixelSample, classes: int, layout: Stages, schedule: Schedule
    ) -> None:
        self.head, self.sample, self.classes, self.layout, self.schedule = head, sample, classes, layout, schedule
        self.folds = fold_of(sample)
        self.parts = np.unique(self.folds).tolist()

    def run(self, views: list[View]) -> tuple[PixelSample, np.ndarray]:
        """Fit the networks, and keep the second one where it is better on images that it was not fitted to."""
        first, second, unseen = self._networks(views)
        self.head.set_layers("first", first)
        self.head.set_layers("second", second)
        return self.sample, unseen.max(axis=1)

    def _networks(self, views: list[View]) -> tuple[Layers, Layers, np.ndarray]:
        """Return both networks, none for one that does not pay, and the probabilities of pixels of left-out images."""
        fit = self.classes, self.layout, self.schedule
        first = fit_first(self.sample, *fit)
        if len(self.parts) < 2:
            return first, (), first_probabilities(first, self.sample)
        others = [fit_first(self.sample.chosen(self.folds != fold), *fit) for fold in self.parts]
        unseen = each_unseen(self.sample, [partial(first_probabilities, layers) for layers in others])
        self.sample = replace(self.sample, context=self._context(views, others))
        others = [fit_second(self.sample.chosen(self.folds != fold), *fit) for fold in self.parts]
        again = each_unseen(self.sample, [partial(second_probabilities, layers, self.layout.fine) for layers in others])
        before, after = (self._mean_iou(probabilities) for probabilities in (unseen, again))
        logger.info("Pixel head: mean IoU of left-out images %.3f, with autocontext %.3f.", before, after)
        if after <= before:
            self.sample = replace(self.sample, context=self.sample.context[:, :0])
            return first, (), unseen
        return first, fit_second(self.sample, *fit), again

    def _mean_iou(self, probabilities: np.ndarray) -> float:
        """Return the mean IoU of the pixels' likeliest classes."""
        return mean_iou(self.sample.labels, probabilities.argmax(axis=1), self.sample.weights, self.classes)

    def _context(self, views: list[View], networks: list[Layers]) -> np.ndarray:
        """Return the stored features of autocontext, of the networks that were not fitted to the views' images."""
        parts, start = [], 0
        for view in views:
            network = networks[self.parts.index(int(self.folds[start]))]
            start += len(view.points)
            self.head.set_layers("first", network)
            parts.append(_context(self.head, view))
        return np.concatenate(parts)


def labelled_views(images: list[LabelledImage], see: Read, read_tokens: Read, seed: int) -> Iterator[View]:
    """Give views of labelled images with the pixels that are drawn in each; every second one is under a drawn light."""
    number = views_of(len(images))
    wanted = PIXELS // (number * len(images))
    for order, source in enumerate(images):
        for index in range(number):
            random = np.random.default_rng([seed, order, index])
            planes, labels = view_of(source.image[0].numpy(), source.mask.numpy(), index, random)
            points, weights = draw_points(labels, wanted, random)
            if len(points):
                image, picked = see(torch.from_numpy(planes)[None]), labels[points[:, 0], points[:, 1]]
                yield View(image, read_tokens(image), points, picked, weights, source, not index)


def _values(head: PixelHead, view: View) -> np.ndarray:
    """Return the features ``[N, F]`` of a view's points."""
    features = head.features(view.image, view.tokens)
    return pixel_values(features.fine[0].numpy(), features.coarse[0].numpy(), view.points)


def principal_directions(maps: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the directions ``[D, E]`` in which standardised maps ``[1, D, h, w]`` differ most, and the maps' mean ``[D]``.

    What is projected keeps its spread: a direction in which tokens hardly differ stays small.
    """
    number = sum(one[0, 0].numel() for one in maps)
    mean = torch.stack([one.sum(dim=(0, 2, 3)) for one in maps]).sum(dim=0) / number
    products = torch.zeros(len(mean), len(mean))
    for one in maps:
        rows = one[0].flatten(1) - mean[:, None]
        products += rows @ rows.T / number
    deviation = products.diagonal().sqrt() + 1e-4
    vectors = torch.linalg.eigh((products / deviation / deviation[:, None]).double()).eigenvectors.float()
    return (vectors[:, -_DIRECTIONS:].flip(1) / deviation[:, None]).contiguous(), mean


def _spread(values: np.ndarray, tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and the scale ``[F]`` of features ``[N, F]``: deviations, one for all of the last, the tokens."""
    deviation = values.std(axis=0)
    deviation[-tokens:] = np.sqrt(np.square(deviation[-tokens:]).mean())
    return values.mean(axis=0), deviation + np.float32(1e-3)


def _sample(views: list[View], values: np.ndarray, novelty: list[np.ndarray], basis: str) -> PixelSample:
    """Return the sample of the views' points, without context."""
    counts = [len(view.points) for view in views]
    return PixelSample(
        values=values,
        labels=np.concatenate([view.labels for view in views]).astype(np.uint8),
        device_ids=np.repeat([view.source.device for view in views], counts).astype(np.int32),
        image_ids=np.repeat([view.source.name for view in views], counts).astype(np.int32),
        weights=np.concatenate([view.weights for view in views]),
        novelty=np.concatenate(novelty).astype(np.float32),
        context=np.empty((len(values), 0), np.int8),
        basis=basis,
    )
