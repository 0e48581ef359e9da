# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Teaching within seconds: a short fit of the pixel head's first network, and a bank, on what is painted so far.

It is the code of the full fit with fewer views (the pictures as they are), fewer steps, and one network. The full fit
belongs to the export.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from anomalib_aoissl.bank.patches import patch_labels, patches_to_image
from anomalib_aoissl.data.indices import IGNORE_INDEX
from anomalib_aoissl.data.reading import image_size
from anomalib_aoissl.labelling.storage.problems import Problem
from anomalib_aoissl.pixel_head.features import FeatureMaps
from anomalib_aoissl.pixel_head.head import PixelHead
from anomalib_aoissl.pixel_head.learning.fitting import Schedule, fit_network
from anomalib_aoissl.pixel_head.learning.sample import evenly_taken
from anomalib_aoissl.pixel_head.learning.training import feature_spread, principal_directions
from anomalib_aoissl.pixel_head.points import draw_points, pixel_values
from anomalib_aoissl.pixel_head.stored import STEP, Layers, stored_values
from anomalib_aoissl.retrieval.memory.memory_bank import MemoryBank
from anomalib_aoissl.retrieval.torch_model import RetrievalModel

from .enlarging import fine_size
from .lesson import HatchingThresholds, Lesson, Suggestion
from .reading import PictureReader, Seen

FIRST_STEPS, NEXT_STEPS = 150, 90
"""Steps of a first fit, and of one that goes on from the last lesson's network."""

PIXELS, PER_PICTURE, FEWEST = 24_000, 8_000, 400
"""Pixels that a fit takes of all pictures together; of each at most, and at least."""

PATCHES = 24_000
"""Labelled patches of all pictures together that the bank is condensed from; of more, so many are taken evenly, since
to condense those of 64 pictures takes 20 s."""

_FEATURES = 5  # pictures whose feature maps stay in memory, 70 MB each


@dataclass(frozen=True)
class Painted:
    """What is painted on a picture.

    Attributes:
        mask: ``[H, W]`` uint8 at the picture's own size, 255 is unpainted.
        version: Changes with it.
        device: What the picture shows.
    """

    mask: np.ndarray
    version: str
    device: str


@dataclass(frozen=True)
class Drawn:
    """Drawn pixels of a painted picture.

    Attributes:
        key: Of picture, mask and directions that it was drawn from.
        values: ``[N, F]`` features.
        labels: ``[N]`` class indices.
        weights: ``[N]``, pixels that each stands for.
        points: ``[N, 2]`` (row, column) at the model's size.
    """

    key: tuple[str, ...]
    values: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    points: np.ndarray


class Teacher:
    """Fits lessons; what did not change since the last one is not computed again.

    Args:
        reader: Reads pictures.
    """

    def __init__(self, reader: PictureReader) -> None:
        self.reader = reader
        self.lesson: Lesson | None = None
        self.limits = HatchingThresholds()
        self.drawn: dict[str, Drawn] = {}
        self._number = 0
        self._base: PixelHead | None = None
        self._based_on = 0
        self._features: OrderedDict[tuple[str, ...], FeatureMaps] = OrderedDict()
        self._lock = threading.Lock()

    def teach(self, painted: Mapping[str, Painted], classes: tuple[str, ...]) -> Lesson:
        """Return a lesson on what is painted.

        Args:
            painted: Pictures with paint on them, by name.
            classes: Names of all classes.

        Raises:
            Problem: If fewer than two classes are painted, or a picture cannot be read.
        """
        resized = {name: self.reader.mask(one.mask) for name, one in painted.items()}
        masks = {name: mask for name, mask in resized.items() if (mask != IGNORE_INDEX).any()}  # a dot may be lost
        seen = {name: self.reader.see(name) for name in masks}
        shown = {int(v) for mask in masks.values() for v in np.unique(mask)} - {IGNORE_INDEX}
        if len(shown) < 2:
            what = f"only {classes[next(iter(shown))]!r} is" if shown else "nothing is"
            msg = f"Paint some of two classes first: {what} painted, and there is nothing to tell apart."
            raise Problem(msg)
        head, start = self._head(list(seen), len(classes))
        self.drawn = {name: self._draw(head, name, seen[name], masks[name], painted[name]) for name in masks}
        layers = self._fit(head, list(self.drawn.values()), len(classes), start)
        head.set_networks(layers, ())
        if len(self.limits.offsets) != len(classes):
            self.limits = replace(self.limits, offsets=np.zeros(len(classes), np.float32))
        head.offsets = torch.from_numpy(self.limits.offsets)
        self._number += 1
        bank = self._bank(seen, masks, {name: painted[name].device for name in masks}, classes)
        self.lesson = Lesson(self._number, self._model(head, bank), tuple(masks), classes, self.limits)
        return self.lesson

    def prepare(self, name: str, painted: Sequence[str]) -> None:
        """Compute what the next lesson needs of a picture that is being painted, so that it takes less time."""
        head = self._head(list(dict.fromkeys([*painted, name])), 0)[0]
        self._features_of(head, name, self.reader.see(name), keep=True)

    def forget(self) -> None:
        """Forget the last lesson and its limits, whose classes are others by now; numbers go on."""
        self.lesson, self.limits, self.drawn = None, HatchingThresholds(), {}

    def suggest(self, lesson: Lesson, name: str, *, fine: bool = False) -> Suggestion:
        """Return what a lesson says of a picture, at the model's size, or finer where the picture is."""
        seen = self.reader.see(name)
        features = self._features_of(lesson.head, name, seen, keep=name in self.drawn)
        height, width = seen.image.shape[-2:]
        size = fine_size(image_size(self.reader.folder.picture(name).files[0]), (height, width)) if fine else None
        return lesson.suggest(features, seen.embeddings, size)

    def fit_sample(
        self, head: PixelHead, drawn: list[Drawn], classes: int, schedule: Schedule, start: Layers | None = None
    ) -> Layers:
        """Return a network that is fitted to drawn pixels, of features that the head standardises."""
        values = np.concatenate([stored_values(one.values, head.mean.numpy(), head.scale.numpy()) for one in drawn])
        labels = np.concatenate([one.labels for one in drawn])
        tokens = slice(values.shape[1] - head.directions.shape[1], values.shape[1])
        return fit_network(values, labels, classes, scale=STEP, tokens=tokens, start=start, schedule=schedule)

    def _head(self, names: Sequence[str], classes: int) -> tuple[PixelHead, Layers | None]:
        """Return a head whose tokens are projected, and the layers to go on from where it is as the last one's.

        The pictures are read only where their number has doubled since.
        """
        head = PixelHead()
        if self._base is None or len(names) >= 2 * self._based_on:
            base = PixelHead()
            base.directions, base.centre = principal_directions([self.reader.see(name).tokens for name in names])
            self._base, self._based_on = base, len(names)
            self._features.clear()
        head.take(self._base)
        last = self.lesson
        same = last is not None and torch.equal(last.head.directions, head.directions)
        again = same and last is not None and last.head.num_classes == classes
        return head, last.head.layers("first") if again and last is not None else None

    def _draw(self, head: PixelHead, name: str, seen: Seen, mask: np.ndarray, painted: Painted) -> Drawn:
        """Return drawn pixels of a picture, the same as before where nothing changed."""
        key = (self.reader.folder.picture(name).version, painted.version, head.projection())
        old = self.drawn.get(name)
        if old is not None and old.key == key:
            return old
        points, weights = draw_points(mask, PER_PICTURE, np.random.default_rng([0, *name.encode()]))
        features = self._features_of(head, name, seen, keep=True)
        values = pixel_values(features.fine[0].numpy(), features.coarse[0].numpy(), points).astype(np.float16)
        return Drawn(key, values, mask[points[:, 0], points[:, 1]], weights, points)

    def _fit(self, head: PixelHead, drawn: list[Drawn], classes: int, start: Layers | None) -> Layers:
        """Return the network of a lesson; standardises the head."""
        wanted = max(FEWEST, PIXELS // len(drawn))
        fewer = [thinned(one, wanted) for one in drawn]
        values = np.concatenate([one.values for one in fewer]).astype(np.float32)
        head.mean, head.scale = feature_spread(values, head.directions.shape[1])
        schedule = Schedule(FIRST_STEPS if start is None else NEXT_STEPS)
        return self.fit_sample(head, fewer, classes, schedule, start)

    def _bank(
        self,
        seen: Mapping[str, Seen],
        masks: Mapping[str, np.ndarray],
        devices: Mapping[str, str],
        classes: Sequence[str],
    ) -> MemoryBank:
        """Return the bank of painted pictures, filled and condensed as in training."""
        model = self.reader.model.model
        bank = MemoryBank(model.encoder.embed_dim, model.patch_size, budget=model.bank.budget, seed=model.bank.seed)
        bank.class_names = list(classes)
        for name, one in seen.items():
            mask = with_patches(masks[name], model.patch_size, max(1, PATCHES // len(seen)))
            bank.add(one.embeddings[None], torch.from_numpy(mask)[None], [devices[name]], [name])
        bank.finish()
        return bank

    def _model(self, head: PixelHead, bank: MemoryBank) -> RetrievalModel:
        """Return the model that the reader's becomes with a head and a bank."""
        read = self.reader.model.model
        model = RetrievalModel(read.encoder, read.vote_options, bank=bank, head=True).eval()
        model.head = head
        return model

    def _features_of(self, head: PixelHead, name: str, seen: Seen, keep: bool) -> FeatureMaps:
        """Return the feature maps of a picture; those of painted pictures stay in memory."""
        # The lesson that is shown may have older directions than the next one.
        key = (name, self.reader.folder.picture(name).version, head.projection())
        with self._lock:
            if key in self._features:
                self._features.move_to_end(key)
                return self._features[key]
        with torch.no_grad():
            features = head.features(seen.image, seen.tokens)
        if keep:
            with self._lock:
                self._features[key] = features
                if len(self._features) > _FEATURES:
                    self._features.popitem(last=False)
        return features


def thinned(drawn: Drawn, wanted: int) -> Drawn:
    """Return at most so many of the drawn pixels, at random; each then stands for more."""
    number = len(drawn.labels)
    if number <= wanted:
        return drawn
    chosen = np.random.default_rng(0).choice(number, wanted, replace=False)
    return Drawn(
        drawn.key,
        drawn.values[chosen],
        drawn.labels[chosen],
        drawn.weights[chosen] * (number / wanted),
        drawn.points[chosen],
    )


def with_patches(mask: np.ndarray, patch: tuple[int, int], most: int) -> np.ndarray:
    """Return a mask ``[H, W]`` with at most so many labelled patches, evenly taken; the others are ignored."""
    labels = patch_labels(mask, patch)  # [P, L]
    used = np.flatnonzero((labels != IGNORE_INDEX).any(axis=1))
    if len(used) <= most:
        return mask
    fewer, kept = np.full_like(labels, IGNORE_INDEX), used[list(evenly_taken(len(used), most))]
    fewer[kept] = labels[kept]
    grid = mask.shape[0] // patch[0], mask.shape[1] // patch[1]
    return patches_to_image(fewer, grid, patch)
