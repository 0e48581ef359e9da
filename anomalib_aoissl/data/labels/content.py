# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What every label format is read to: pictures with shapes of named classes, or with a mask of indices."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from anomalib_aoissl.data.errors import DatasetError

IGNORE_NAME = "ignore"
"""Name of the class of ignored pixels, in formats that have no value for them."""


@dataclass(frozen=True)
class Shape:
    """One labelled object, as polygons or as a mask.

    Attributes:
        label: Name of its class.
        rings: Closed polygons ``[N, 2]`` (x, y) in px. The centre of pixel (row i, column j) is (j + 0.5, i + 0.5).
        holes: Whether a ring inside another is a hole of it (even-odd); else all rings are parts.
        mask: Gives ``[h, w]`` bool when it is called; None where the shape has rings.
        corner: Row and column of the mask's first pixel in the picture.
        layer: Shapes of a higher layer lie on top.
    """

    label: str
    rings: tuple[np.ndarray, ...] = ()
    holes: bool = False
    mask: Callable[[], np.ndarray] | None = None
    corner: tuple[int, int] = (0, 0)
    layer: int = 0


@dataclass(frozen=True)
class LabelledPicture:
    """The labels of one picture.

    Attributes:
        name: Name of the picture in the label file, with or without folders and suffix.
        source: The label file, for messages.
        size: (height, width) in px that the labels were drawn at; None where the format does not say.
        shapes: In the order of the file.
        indices: Gives the classes' indices ``[H, W]`` uint8 (see `LabelSet.classes`; 0 is background, 255 ignore) when
            it is called; None where there are shapes.
        device: Name of the device on the picture; None where the format does not say.
    """

    name: str
    source: Path
    size: tuple[int, int] | None = None
    shapes: Sequence[Shape] = ()
    indices: Callable[[], np.ndarray] | None = None
    device: str | None = None

    @property
    def labelled(self) -> bool:
        """Whether anything is drawn; a picture without a shape may be free of parts, or not labelled yet."""
        return bool(self.shapes) or self.indices is not None

    def joined(self, other: LabelledPicture) -> LabelledPicture:
        """Return the labels of two pictures of one item, two lighting channels, as one; the other's shapes come later.

        Raises:
            DatasetError: If they are of two sizes, or one is a mask, which no other labels can be joined with.
        """
        both = f"{other.source}: labels {other.name}, and {self.source} labels {self.name} of the same item"
        if None not in {self.size, other.size} and self.size != other.size:
            msg = f"{both}, at another size: {other.size} and {self.size} px (height, width). Label one of them."
            raise DatasetError(msg)
        if self.labelled and other.labelled and not (self.indices is None and other.indices is None):
            msg = f"{both}. An item has one mask, and two cannot be joined. Remove one of them."
            raise DatasetError(msg)
        return replace(
            self,
            size=self.size or other.size,
            shapes=[*self.shapes, *other.shapes],
            indices=self.indices or other.indices,
            device=self.device or other.device,
        )


@dataclass(frozen=True)
class LabelSet:
    """All labels of an export.

    Attributes:
        format: Name of the format.
        classes: Names of the classes in the order of the format, without background.
        images: The pictures' labels.
        notes: One line on each thing that was left out or looks wrong, with its file.
    """

    format: str
    classes: tuple[str, ...]
    images: Sequence[LabelledPicture]
    notes: list[str] = field(default_factory=list)

    @classmethod
    def joined(cls, format: str, files: Iterable[LabelSet]) -> LabelSet:  # noqa: A002 - as the field
        """Return the labels of several files as one; their classes are joined by name."""
        sets = list(files)
        classes = dict.fromkeys(name for part in sets for name in part.classes)
        images = [image for part in sets for image in part.images]
        return cls(format, tuple(classes), images, [note for part in sets for note in part.notes])


@dataclass(frozen=True)
class MaskedImage:
    """A picture with its class-index mask, as label files are written from.

    Attributes:
        name: Name of the picture's file below the folder of pictures, with ``/`` between folders; of the first where an
            item has several lighting channels.
        item: The same without the suffix, and without that of the lighting channel; names the mask.
        mask: ``[H, W]`` uint8 class indices; 255 is ignored.
        device: Name of the device; None where it is not known.
        split: Folder of the split that it is written to, "train", "val" or "test"; nothing where all are in one.
    """

    name: str
    item: str
    mask: np.ndarray
    device: str | None = None
    split: str = ""
