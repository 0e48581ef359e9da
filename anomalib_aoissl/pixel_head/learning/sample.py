# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The labelled pixels that the pixel head is fitted to: what a model keeps of its images, to be fitted again later."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

logger = logging.getLogger(__name__)

FOLDS = 3
"""Parts of the images for each of which a network is fitted to the others."""

_OFFSETS = np.arange(-2, 2.01, 0.25, dtype=np.float32)

KINDS = {
    "values": "i1",
    "labels": "u1",
    "device_ids": "i4",
    "image_ids": "i4",
    "weights": "f4",
    "novelty": "f4",
    "folds": "u1",
    "context": "i1",
}
"""Arrays of a sample, and their types."""


def evenly_taken(number: int, most: int) -> list[int]:
    """Return the indices of so many things, or, where there are more than ``most``, of that many evenly among them."""
    taken = min(most, number)
    return [index * number // taken for index in range(taken)]


@dataclass(frozen=True)
class PixelSample:
    """Labelled pixels of the bank's images, N of them; F features of a pixel.

    Attributes:
        values: ``[N, F]`` int8, standardised features in units of `STEP`.
        labels: ``[N]`` uint8, class indices.
        device_ids: ``[N]`` int32, indices into the bank's names of devices.
        image_ids: ``[N]`` int32, indices into the bank's names of images.
        weights: ``[N]`` float32, pixels of its image and class that a drawn one stands for.
        novelty: ``[N]`` float32, 1 - cosine similarity to the nearest entry of other images; NaN where there are none.
        folds: ``[N]`` uint8, the part of the images, or of a single image, that is left out of a fit together.
        context: ``[N, E]`` int8, features of autocontext from a network that was not fitted to the image, as `values`;
            E is 0 without autocontext.
        basis: Says which head's features these are: how tokens were projected and features standardised.
    """

    values: np.ndarray
    labels: np.ndarray
    device_ids: np.ndarray
    image_ids: np.ndarray
    weights: np.ndarray
    novelty: np.ndarray
    folds: np.ndarray
    context: np.ndarray
    basis: str = ""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays by name."""
        return {name: getattr(self, name) for name in KINDS}

    @property
    def megabytes(self) -> float:
        """Size in memory, a million bytes each."""
        return sum(array.nbytes for array in self.arrays.values()) / 1e6

    def chosen(self, which: np.ndarray) -> PixelSample:
        """Return the pixels that are true, or at indices."""
        return PixelSample(**{name: array[which] for name, array in self.arrays.items()}, basis=self.basis)

    def every(self, step: int) -> PixelSample:
        """Return every so many-th pixel, which stands for those that are left out too."""
        taken = self.chosen(np.arange(0, len(self), step))
        return replace(taken, weights=step * taken.weights)

    def renumbered(self, devices: np.ndarray, images: np.ndarray) -> PixelSample:
        """Return the sample with other ids of devices and images, looked up in tables."""
        device_ids, image_ids = devices[self.device_ids], images[self.image_ids]
        return replace(self, device_ids=device_ids.astype(np.int32), image_ids=image_ids.astype(np.int32))

    def relabelled(self, classes: Sequence[int], number: int) -> PixelSample:
        """Return the sample with the index ``classes[i]`` for class i, of so many classes; its context with it."""
        table = np.array(classes, np.uint8)
        return replace(self, labels=table[self.labels], context=spread_context(self.context, classes, number))

    def joined(self, other: PixelSample) -> PixelSample:
        """Return the sample with the pixels of another after its own."""
        theirs = other.arrays
        both = {name: np.concatenate([array, theirs[name]]) for name, array in self.arrays.items()}
        return PixelSample(**both, basis=self.basis)


def sample_of(arrays: Mapping[str, np.ndarray], basis: str) -> PixelSample:
    """Return the sample of arrays by name, in the types that it has in memory."""
    return PixelSample(**{name: np.asarray(arrays[name], kind) for name, kind in KINDS.items()}, basis=basis)


def spread_context(context: np.ndarray, classes: Sequence[int], number: int) -> np.ndarray:
    """Return a context whose class i becomes ``classes[i]`` of so many; the probabilities of the others are 0."""
    parts = context.shape[1] // len(classes)
    spread = np.zeros((len(context), parts, number), np.int8)
    spread[:, :, np.array(classes)] = context.reshape(len(context), parts, len(classes))
    return spread.reshape(len(context), parts * number)


def joined_pixels(ours: PixelSample, theirs: PixelSample) -> PixelSample:
    """Return our pixels and then theirs, whose context is 0 where it has other columns.

    Theirs are left out where they are features of another head, which is warned of.
    """
    if ours.basis != theirs.basis:
        logger.warning(
            "The bank to take in was filled by another model, so that its %d labelled pixels cannot be used by this "
            "pixel head, which stays as it was. Adapt to the labelled images, or train on them.",
            len(theirs),
        )
        return ours
    if theirs.context.shape[1] != ours.context.shape[1]:
        theirs = replace(theirs, context=np.zeros((len(theirs), ours.context.shape[1]), np.int8))
    return ours.joined(theirs)


def mean_iou(labels: np.ndarray, predicted: np.ndarray, weights: np.ndarray, classes: int) -> float:
    """Return the mean over the classes that occur of `class_ious`."""
    ious = class_ious(labels, predicted, weights, classes)
    return float(ious[~np.isnan(ious)].mean())


def confusion(labels: np.ndarray, predicted: np.ndarray, weights: np.ndarray, classes: int) -> np.ndarray:
    """Return ``[C, C]``: how many pixels of each class are predicted as each, each counted as its weight says."""
    cells = np.bincount(labels.astype(np.int64) * classes + predicted, weights, minlength=classes * classes)
    return cells.reshape(classes, classes)


def class_ious(labels: np.ndarray, predicted: np.ndarray, weights: np.ndarray, classes: int) -> np.ndarray:
    """Return the IoU ``[C]`` of each class, each pixel counted as its weight says; NaN where it does not occur."""
    table = confusion(labels, predicted, weights, classes)
    hits, unions = table.diagonal(), table.sum(axis=0) + table.sum(axis=1) - table.diagonal()
    return np.divide(hits, unions, out=np.full(classes, np.nan), where=unions > 0)


def classes_of_one_fold(sample: PixelSample) -> list[int]:
    """Return the classes whose pixels are all in one fold."""
    pairs = np.unique(np.stack([sample.labels, sample.folds]), axis=1)
    classes, folds = np.unique(pairs[0], return_counts=True)
    found: list[int] = classes[folds == 1].tolist()
    return found


def class_offsets(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return what to add to each class's score ``[C]`` so that the mean IoU of these pixels is largest.

    Pixels are drawn with rare classes more often than they occur, so that a network finds them too often; how often is
    best, for the mean IoU, these pixels say. Coordinate ascent over steps of 0.25 within 2, twice through the classes;
    an offset that gives less than a hundredth of a point stays 0.

    Args:
        probabilities: ``[N, C]`` of networks that were not fitted to these pixels.
        labels: ``[N]`` class indices.
        weights: ``[N]``, pixels that each stands for.
    """
    classes = probabilities.shape[1]
    scores = np.log(np.maximum(probabilities, 1e-9))
    offsets = np.zeros(classes, np.float32)
    best = mean_iou(labels, scores.argmax(axis=1), weights, classes)
    for index in [*range(classes)] * 2:
        for offset in _OFFSETS:
            changed = offsets.copy()
            changed[index] = offset
            value = mean_iou(labels, (scores + changed).argmax(axis=1), weights, classes)
            if value > best + 1e-4:
                best, offsets = value, changed
    return offsets
