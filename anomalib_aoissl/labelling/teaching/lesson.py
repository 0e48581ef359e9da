# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What the page has learned: a model, and what it says of a picture."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from anomalib_aoissl.pixel_head.features import FeatureMaps
from anomalib_aoissl.pixel_head.head import PixelHead
from anomalib_aoissl.retrieval.torch_model import RetrievalModel

from .enlarging import decided


@dataclass(frozen=True)
class Suggestion:
    """What a lesson says of a picture, at the model's size or a finer one.

    Attributes:
        classes: ``[h, w]`` uint8 class indices.
        unsure: ``[h, w]`` bool, where it does not know.
        novel: ``[h, w]`` bool, where nothing labelled looks alike.
        novelty: Mean novelty of its patches.
        lesson: Number of the lesson.
    """

    classes: np.ndarray
    unsure: np.ndarray
    novel: np.ndarray
    novelty: float
    lesson: int


@dataclass
class HatchingThresholds:
    """From where on the page hatches.

    Known once two pictures are labelled, which are asked of each other. Nothing is called new before: of scribbles on
    one picture, most of each other one would be.

    Attributes:
        uncertainty: Above it a pixel is one that the model does not know.
        novelty: Above it a patch is new.
        offsets: ``[C]``, added to the classes' scores.
    """

    uncertainty: float = 0.6
    novelty: float = 2.0
    offsets: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))


@dataclass(frozen=True)
class Lesson:
    """A fit to what is painted so far.

    Attributes:
        number: Counts the lessons of the session.
        model: The model; its head has one network, and its bank's images are named as the pictures are.
        names: The pictures that it was fitted to.
        classes: Names of the classes at that time.
        limits: From where on to hatch.
    """

    number: int
    model: RetrievalModel
    names: tuple[str, ...]
    classes: tuple[str, ...]
    limits: HatchingThresholds

    @property
    def head(self) -> PixelHead:
        """The fitted head."""
        head: PixelHead = self.model.head  # type: ignore[assignment]
        return head

    @torch.no_grad()
    def suggest(
        self, features: FeatureMaps, embeddings: torch.Tensor, size: tuple[int, int] | None = None
    ) -> Suggestion:
        """Return the suggestion for a picture: what head and bank decide together, as in the model that is exported.

        Args:
            features: Of the picture, ``[1, F, h, w]``.
            embeddings: ``[P, E]`` of its patches.
            size: (height, width) of the suggestion, not less than the model's, which it is without.
        """
        votes, novelties = self.model.ask(embeddings[None])
        probabilities = self.model.joint(self.head.of_features(features), votes)[0]  # [C, h, w]
        novelty = novelties[0, 0]
        limits = self.limits.uncertainty, self.limits.novelty
        height, width = size or probabilities.shape[1:]
        classes, unsure, novel = (part.numpy() for part in decided(probabilities, novelty, (height, width), limits))
        return Suggestion(classes, unsure, novel, float(novelty.mean()), self.number)
