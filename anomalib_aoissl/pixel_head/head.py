# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The fitted pixel head as a torch module: maps of an image to class probabilities."""

from __future__ import annotations

import hashlib

import torch
from anomalib.models.components import DynamicBufferMixin
from torch.compiler import is_exporting

from .autocontext import context_maps
from .features import FeatureMaps, feature_maps
from .marking import mark
from .network import class_scores
from .points import CONTEXT_SCALE
from .stored import Layers

_STAGES, _ARRAYS = ("first", "second"), 6
_PROJECTION = ("directions", "centre")
_FEATURES = (*_PROJECTION, "mean", "scale")


class PixelHead(DynamicBufferMixin):
    """One or two small networks over image filters and tokens; the second one sees what the first one said around.

    Everything is a buffer of any size, empty until it is fitted: ``directions`` ``[D, E]`` and ``centre`` ``[D]``
    project tokens, ``mean`` and ``scale`` ``[F]`` standardise features, ``first_0`` to ``second_5`` are weights ``[in,
    out]`` and biases ``[out]`` in turn, and ``offsets`` ``[C]`` are added to the classes' scores at last.
    """

    def __init__(self) -> None:
        super().__init__()
        for name in (*_FEATURES, "offsets", *(f"{stage}_{index}" for stage in _STAGES for index in range(_ARRAYS))):
            self.register_buffer(name, torch.empty(0))
        self.directions: torch.Tensor
        self.centre: torch.Tensor
        self.mean: torch.Tensor
        self.scale: torch.Tensor
        self.offsets: torch.Tensor

    @property
    def fitted(self) -> bool:
        """Whether there is a network."""
        return len(self.get_buffer("first_0")) > 0

    @property
    def has_autocontext(self) -> bool:
        """Whether there is a second network."""
        return len(self.get_buffer("second_0")) > 0

    @property
    def num_classes(self) -> int:
        """Classes that are told apart; 0 where nothing is fitted."""
        return len(self.get_buffer(f"first_{_ARRAYS - 1}"))

    def layers(self, stage: str) -> Layers:
        """Return the layers of a network, "first" or "second"; none where there is none."""
        arrays = self._layers(stage)
        return tuple(array.cpu().numpy() for array in arrays) if len(arrays[0]) else ()

    def set_layers(self, stage: str, layers: Layers) -> None:
        """Take the layers of a network; none for no network."""
        for index in range(_ARRAYS):
            array = torch.from_numpy(layers[index]) if layers else torch.empty(0)
            setattr(self, f"{stage}_{index}", array.to(self.mean.device))

    def set_networks(self, first: Layers, second: Layers) -> None:
        """Take the layers of both networks; none for no second one."""
        self.set_layers("first", first)
        self.set_layers("second", second)

    def take(self, other: PixelHead) -> None:
        """Take what another head was fitted to, on the device where this one is."""
        for name, buffer in list(self.named_buffers()):
            setattr(self, name, other.get_buffer(name).detach().clone().to(buffer.device))

    def clear(self) -> None:
        """Forget what was fitted."""
        for name, buffer in list(self.named_buffers()):
            setattr(self, name, buffer.new_empty(0))

    def basis(self) -> str:
        """Return a short text that tells heads apart whose standardised features differ."""
        return self._digest(_FEATURES)

    def projection(self) -> str:
        """Return a short text that tells heads apart whose `features` differ, which are not standardised yet."""
        return self._digest(_PROJECTION)

    def features(self, images: torch.Tensor, tokens: torch.Tensor) -> FeatureMaps:
        """Return the features of images ``[B, C, H, W]`` with tokens ``[B, D, rows, columns]``."""
        return feature_maps(images, self.projected(tokens))

    def projected(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return tokens ``[B, D, rows, columns]`` in few directions, ``[B, E, rows, columns]``."""
        offset = -(self.centre @ self.directions)
        return torch.nn.functional.conv2d(tokens, self.directions.T[:, :, None, None], offset)

    def forward(self, images: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Return class probabilities ``[B, C, H, W]``; arguments are those of `features`."""
        if not is_exporting() and len(images) > 1:  # maps of several images fit no cache: each would take twice as long
            pairs = zip(images.split(1), tokens.split(1), strict=True)
            return torch.cat([self.of_features(self.features(*pair)) for pair in pairs])
        return self.of_features(self.features(images, tokens))

    def of_features(self, features: FeatureMaps) -> torch.Tensor:
        """Return class probabilities ``[B, C, H, W]`` of `features`."""
        features = FeatureMaps(mark("fine_features", features.fine), mark("coarse_features", features.coarse))
        if self.has_autocontext:
            first = mark("first_probabilities", self.first(features))
            return mark("class_probabilities", self.second(features, first, mark("context_maps", context_maps(first))))
        return mark("class_probabilities", self.first(features, self.offsets))

    def first(self, features: FeatureMaps, offsets: torch.Tensor | None = None) -> torch.Tensor:
        """Return the class probabilities ``[B, C, H, W]`` of the first network, offsets of the classes added."""
        layers = standardising(self._layers("first"), self.mean, self.scale)
        return class_scores(_moved(layers, offsets), features).softmax(dim=1)

    def second(self, features: FeatureMaps, probabilities: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Return those of the second network, given those of the first, ``[B, C, H, W]``, and their `context_maps`."""
        counts = features.fine.shape[1], probabilities.shape[1], context.shape[1]
        mean, scale = between(self.mean, 0.0, *counts), between(self.scale, CONTEXT_SCALE, *counts)
        layers = _moved(standardising(self._layers("second"), mean, scale), self.offsets)
        return class_scores(layers, features, FeatureMaps(probabilities, context)).softmax(dim=1)

    def _digest(self, names: tuple[str, ...]) -> str:
        """Return a short text that changes with any of the buffers."""
        digest = hashlib.sha256()
        for name in names:
            digest.update(self.get_buffer(name).cpu().numpy().tobytes())
        return digest.hexdigest()[:16]

    def _layers(self, stage: str) -> list[torch.Tensor]:
        """Return the layers of a network."""
        return [self.get_buffer(f"{stage}_{index}") for index in range(_ARRAYS)]


def _moved(layers: list[torch.Tensor], offsets: torch.Tensor | None) -> list[torch.Tensor]:
    """Return layers whose scores have offsets of the classes added."""
    return layers if offsets is None else [*layers[:-1], layers[-1] + offsets]


def between(values: torch.Tensor, value: float, fine: int, classes: int, context: int) -> torch.Tensor:
    """Return values of features with those of autocontext, all the same, after the fine ones and at the end."""
    return torch.cat(
        [values[:fine], values.new_full((classes,), value), values[fine:], values.new_full((context,), value)]
    )


def standardising(layers: list[torch.Tensor], mean: torch.Tensor, scale: torch.Tensor) -> list[torch.Tensor]:
    """Return layers whose first one standardises its inputs by a mean and a scale ``[in]``."""
    weight = layers[0] / scale[:, None]
    return [weight, layers[1] - mean @ weight, *layers[2:]]
