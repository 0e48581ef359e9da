# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What the decoder learns from: views of labelled images with what the pixel head says of them when it was not told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional

from anomalib_aoissl.data.indices import IGNORE_INDEX

_KEPT = 256
"""Views that are kept; of more, each is made again when it is drawn."""

_SCALES = (0.75, 1.35)
_CONTRAST, _BRIGHTNESS = 0.15, 0.075  # largest change; the light is standardised before


@dataclass(frozen=True)
class Example:
    """A view of a labelled image.

    Attributes:
        image: Normalised, ``[P, H, W]``.
        probabilities: Of the pixel head's networks that were not fitted to the image, ``[C, H, W]``.
        tokens: Standardised, ``[E, rows, columns]``.
        mask: Class indices ``[H, W]`` uint8, 255 is ignored.
    """

    image: torch.Tensor
    probabilities: torch.Tensor
    tokens: torch.Tensor
    mask: torch.Tensor

    def stored(self) -> Example:
        """Return the example in half precision and in the main memory, as it is kept."""
        parts = (getattr(self, field.name).cpu() for field in fields(self))
        return Example(*(values.half() if values.is_floating_point() else values for values in parts))


class Step(NamedTuple):
    """Examples of a step, as the decoder takes them: ``[B, ...]`` each."""

    images: torch.Tensor
    probabilities: torch.Tensor
    tokens: torch.Tensor
    masks: torch.Tensor


class Examples:
    """Views by the name of their image, each made when it is first asked for.

    Args:
        makers: For each image, functions that make its views.
        seed: Of what is random.
        step: Steps that were trained before: what goes on after a stop draws others.
        turned: Whether they are turned and mirrored.
    """

    def __init__(
        self, makers: dict[str, list[Callable[[], Example]]], seed: int, *, step: int = 0, turned: bool = True
    ) -> None:
        self.makers, self.turned = makers, turned
        self.random = np.random.default_rng([seed, step])
        self._kept: dict[tuple[str, int], Example] = {}

    def draw(self, names: Sequence[str]) -> Step | None:
        """Return a drawn view of each image, enlarged or reduced, turned and mirrored; None where none is labelled."""
        known = [name for name in names if name in self.makers]
        if not known:
            return None
        drawn = [self._varied(self._view(name, int(self.random.integers(len(self.makers[name]))))) for name in known]
        return Step(*(torch.stack([getattr(one, field.name) for one in drawn]) for field in fields(Example)))

    def _view(self, name: str, index: int) -> Example:
        """Return a view of an image."""
        if (name, index) in self._kept:
            return self._kept[name, index]
        example = self.makers[name][index]().stored()
        if len(self._kept) < _KEPT:
            self._kept[name, index] = example
        return example

    def _varied(self, example: Example) -> Example:
        """Return the example at another size, turned, mirrored, and of slightly other contrast and brightness."""
        scale, turns = float(self.random.uniform(*_SCALES)), int(self.random.integers(4))
        mirrored, corner = bool(self.random.integers(2)), self.random.random(2)
        moved = zoomed(example, scale, (float(corner[0]), float(corner[1])))
        moved = turned(moved, turns, mirrored) if self.turned else moved
        contrast = 1 + float(self.random.uniform(-_CONTRAST, _CONTRAST))
        brightness = float(self.random.uniform(-_BRIGHTNESS, _BRIGHTNESS))
        return Example(moved.image * contrast + brightness, moved.probabilities, moved.tokens, moved.mask)


def zoomed(example: Example, scale: float, corner: tuple[float, float]) -> Example:
    """Return an example of the same size that shows a part of it enlarged, or all of it reduced.

    What a reduced one leaves free repeats the border, and is ignored in the mask. Windows begin and end where patches
    do.

    Args:
        example: The example.
        scale: Factor; above 1 enlarges.
        corner: Where the part begins, (down, across) as shares of what is left over, in [0, 1].
    """
    size, grid = tuple(example.mask.shape), tuple(example.tokens.shape[-2:])
    shown = [max(1, min(cells, round(cells / scale))) for cells in grid]
    filled = [max(1, min(cells, round(part * scale))) for cells, part in zip(grid, shown, strict=True)]
    first = [int(share * (cells - part + 1)) for share, cells, part in zip(corner, grid, shown, strict=True)]
    first = [min(start, cells - part) for start, cells, part in zip(first, grid, shown, strict=True)]

    def window(values: torch.Tensor, mode: str) -> torch.Tensor:
        sides = [length // cells for length, cells in zip(values.shape[-2:], grid, strict=True)]
        rows, columns = (slice(at * side, (at + n) * side) for at, n, side in zip(first, shown, sides, strict=True))
        target = [cells * side for cells, side in zip(filled, sides, strict=True)]
        part = values[..., rows, columns].float()
        if list(part.shape[-2:]) != target:
            corners = {"align_corners": False} if mode == "bilinear" else {}
            part = functional.interpolate(part[None], target, mode=mode, **corners)[0]
        return part

    def filled_up(values: torch.Tensor) -> torch.Tensor:
        part = window(values, "bilinear")
        missing = [length - have for length, have in zip(values.shape[-2:], part.shape[-2:], strict=True)]
        return functional.pad(part, (0, missing[1], 0, missing[0]), mode="replicate") if max(missing) else part

    mask = window(example.mask[None], "nearest-exact")[0].to(torch.uint8)  # "nearest" moves it against the image
    free = (0, size[1] - mask.shape[1], 0, size[0] - mask.shape[0])
    image, probabilities, tokens = map(filled_up, (example.image, example.probabilities, example.tokens))
    return Example(image, probabilities, tokens, functional.pad(mask, free, value=IGNORE_INDEX))


def turned(example: Example, turns: int, mirrored: bool) -> Example:
    """Return an example turned by quarter turns, by half turns alone where it is not square, and mirrored or not."""
    square = all(values.shape[-2] == values.shape[-1] for values in (example.mask, example.tokens))
    turns = turns if square else turns // 2 * 2

    def moved(values: torch.Tensor) -> torch.Tensor:
        values = values.rot90(turns, (-2, -1))
        return values.flip(-1) if mirrored else values

    return Example(*(moved(getattr(example, field.name)) for field in fields(example)))
