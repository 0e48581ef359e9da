# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Fitting the pixel head to labelled images: features, networks, and whether autocontext pays."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from ..filters import filter_counts
from ..head import PixelHead
from ..stored import Layers
from . import stages
from .fitting import Schedule
from .labelled import (
    LabelledImage,
    Reader,
    View,
    effort,
    labelled_views,
    sample_of_views,
    view_context,
    view_values,
)
from .sample import PixelSample, class_offsets, classes_of_one_fold, confusion, mean_iou
from .stages import Stages, each_unseen, first_probabilities, fit_first, fit_second, offset, second_probabilities

logger = logging.getLogger(__name__)

_DIRECTIONS = 128
"""Directions of the tokens that are kept: those in which the labelled images' tokens differ most."""

_FOLD_SHARE = 0.5
"""Steps of a network that only predicts what was left out, as a share of those of one that is kept."""

_BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}"


Networks = tuple[Layers, Layers]
"""The layers of both networks of a head; none for a second one that does not pay."""


@dataclass(frozen=True)
class HeadFit:
    """What a fit leaves beside the head.

    Attributes:
        sample: The pixels that the head was fitted to.
        sure: ``[N]``, the largest class probability that networks fitted to other images give to each pixel.
        views: The views that the pixels were drawn from.
        others: For each fold the networks that were fitted to the other folds; empty where there is one fold alone.
        confusion: ``[C, C]``, what these networks take the pixels of each class for; 0 where folds judge nothing.
    """

    sample: PixelSample
    sure: np.ndarray
    views: Sequence[View]
    others: Mapping[int, Networks]
    confusion: np.ndarray

    @cached_property
    def alone(self) -> list[int]:
        """Classes that one fold alone shows, see `classes_of_one_fold`."""
        return classes_of_one_fold(self.sample)


@torch.no_grad()
def fit_head(head: PixelHead, images: Sequence[LabelledImage], classes: int, reader: Reader) -> HeadFit:
    """Fit the head to labelled images.

    Args:
        head: The head; what it has is overwritten.
        images: The labelled images.
        classes: C.
        reader: How the images are read, and the seed.
    """
    times = effort(len(images))
    views = list(labelled_views(images, reader, times))
    head.directions, head.centre = principal_directions([view.tokens for view in views])
    values = np.concatenate([view_values(head, view) for view in views])
    head.mean, head.scale = feature_spread(values, head.directions.shape[1])
    fine, tokens = filter_counts(images[0].image.shape[1])[0], head.directions.shape[1]
    layout = Stages((), (), np.zeros(classes, np.float32), fine, tokens)
    with tqdm(desc="Fitting the pixel head", total=1.0, disable=None, leave=False, bar_format=_BAR) as bar:
        schedule = Schedule(stages.STEPS * times, reader.seed, bar.update)
        return _Fit(head, sample_of_views(head, views, values, reader), classes, layout, schedule).run(views)


@torch.no_grad()
def left_out_maps(head: PixelHead, fit: HeadFit, view: View) -> torch.Tensor:
    """Return class probabilities ``[1, C, H, W]`` of a view by networks that were not fitted to what it shows.

    By the head itself where there is one fold alone, and where the view shows a class that one fold alone has: the
    others do not know it, and what they say of it is wrong in a way that no other picture has.
    """
    own, features = (head.layers("first"), head.layers("second")), head.features(view.image, view.tokens)
    known = not np.isin(view.mask, fit.alone).any()
    result: torch.Tensor | None = None
    for fold, networks in fit.others.items() if known else ():
        here = torch.from_numpy(view.parts == fold)
        if here.any():
            head.set_networks(*networks)
            answer = head.of_features(features)
            result = answer if result is None else torch.where(here, answer, result)
    head.set_networks(*own)
    return head.of_features(features) if result is None else result


@torch.no_grad()
def sample_more(head: PixelHead, images: Sequence[LabelledImage], reader: Reader) -> PixelSample:
    """Return labelled pixels of images that a fitted head has not seen, with context where it has two networks."""
    views = list(labelled_views(images, reader))
    sample = sample_of_views(head, views, np.concatenate([view_values(head, view) for view in views]), reader)
    if not head.has_autocontext:
        return sample
    return replace(sample, context=np.concatenate([view_context(head, view) for view in views]))


class _Fit:
    """The networks of a fit.

    Folds judge it where each class is in two of them or more. Networks that were fitted to the others do not know a
    class that one fold alone has: what they say of its pixels is wrong in a way that no other picture has. Then there
    is no autocontext, which would learn from it, and no offset of a class.

    Args:
        head: The head, whose features are fixed.
        sample: Pixels with these features.
        classes: C.
        layout: Stages without networks.
        schedule: Of a network that is kept; what it reports is of all networks together.
    """

    def __init__(self, head: PixelHead, sample: PixelSample, classes: int, layout: Stages, schedule: Schedule) -> None:
        self.head, self.sample, self.classes, self.layout = head, sample, classes, layout
        self.parts = np.unique(sample.folds).tolist()
        self.judged = len(self.parts) > 1 and not classes_of_one_fold(sample)
        work = (2 + 2 * len(self.parts) * _FOLD_SHARE) if len(self.parts) > 1 else 1
        steps, seed, report = schedule.steps, schedule.seed, schedule.report
        self.schedule = Schedule(steps, seed, lambda share: report(share / work))
        self.of_fold = Schedule(int(steps * _FOLD_SHARE), seed, lambda share: report(share * _FOLD_SHARE / work))

    def run(self, views: Sequence[View]) -> HeadFit:
        """Fit the networks, and keep the second one where it is better on images that it was not fitted to."""
        networks, others, unseen = self._networks(views)
        labels, weights, number = self.sample.labels, self.sample.weights, self.classes
        offsets = class_offsets(unseen, labels, weights) if self.judged else np.zeros(number, np.float32)
        unseen = offset(unseen, offsets)
        taken = np.zeros((number, number))
        if self.judged:
            taken = confusion(labels, unseen.argmax(axis=1), weights, number)
        self.head.set_networks(*networks)
        self.head.offsets = torch.from_numpy(offsets)
        return HeadFit(self.sample, unseen.max(axis=1), views, others, taken)

    def _networks(self, views: Sequence[View]) -> tuple[Networks, dict[int, Networks], np.ndarray]:
        """Return both networks, those of the folds, and the probabilities of pixels of left-out images."""
        fit, of_fold = ((self.classes, self.layout, schedule) for schedule in (self.schedule, self.of_fold))
        if len(self.parts) < 2:
            first = fit_first(self.sample, *fit)
            return (first, ()), {}, first_probabilities(first, self.sample)
        of_folds = [partial(fit_first, self._without(fold), *of_fold) for fold in self.parts]
        first, *firsts = _at_once([partial(fit_first, self.sample, *fit), *of_folds])
        unseen = each_unseen(self.sample, [partial(first_probabilities, layers) for layers in firsts])
        first_alone: dict[int, Networks] = {fold: (layers, ()) for fold, layers in zip(self.parts, firsts, strict=True)}
        if not self.judged:
            return (first, ()), first_alone, unseen
        self.sample = replace(self.sample, context=self._context(views, firsts))
        seconds = _at_once([partial(fit_second, self._without(fold), *of_fold) for fold in self.parts])
        networks = [partial(second_probabilities, layers, self.layout.fine) for layers in seconds]
        again = each_unseen(self.sample, networks)
        before, after = (self._mean_iou(probabilities) for probabilities in (unseen, again))
        logger.info("Pixel head: mean IoU of left-out images %.3f, with autocontext %.3f.", before, after)
        if after <= before:
            self.sample = replace(self.sample, context=self.sample.context[:, :0])
            return (first, ()), first_alone, unseen
        others = dict(zip(self.parts, zip(firsts, seconds, strict=True), strict=True))
        return (first, fit_second(self.sample, *fit)), others, again

    def _without(self, fold: int) -> PixelSample:
        """Return the sample without the pixels of a fold."""
        return self.sample.chosen(self.sample.folds != fold)

    def _mean_iou(self, probabilities: np.ndarray) -> float:
        """Return the mean IoU of the pixels' likeliest classes."""
        return mean_iou(self.sample.labels, probabilities.argmax(axis=1), self.sample.weights, self.classes)

    def _context(self, views: Sequence[View], networks: Sequence[Layers]) -> np.ndarray:
        """Return the stored features of autocontext, of the networks that were not fitted to the points' folds."""
        parts = []
        for view in views:
            values: dict[int, np.ndarray] = {}
            for fold in np.unique(view.folds).tolist():
                self.head.set_layers("first", networks[self.parts.index(fold)])
                values[fold] = view_context(self.head, view)
            whole = next(iter(values.values())).copy()
            for fold, found in values.items():
                whole[view.folds == fold] = found[view.folds == fold]
            parts.append(whole)
        return np.concatenate(parts)


def _at_once(fits: Sequence[Callable[[], Layers]]) -> list[Layers]:
    """Return the networks of fits, as many at a time as torch may use threads."""
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return list(pool.map(lambda fit: fit(), fits))


def principal_directions(maps: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the directions ``[D, E]`` in which standardised maps ``[1, D, h, w]`` differ most, and their mean.

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


def feature_spread(values: np.ndarray, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean and the scale ``[F]`` of features ``[N, F]``: deviations, one for all of the last, the tokens."""
    deviation = values.std(axis=0)
    deviation[-tokens:] = np.sqrt(np.square(deviation[-tokens:]).mean())
    return torch.from_numpy(values.mean(axis=0)), torch.from_numpy(deviation + np.float32(1e-3))
