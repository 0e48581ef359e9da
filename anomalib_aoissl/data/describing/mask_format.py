# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""How the mask files of a dataset are coded; it travels with a model, so that it learns more of them as in training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DatasetError
from ..indices import IGNORE_INDEX
from ..reading import Colour, read_mask


@dataclass(frozen=True)
class MaskFormat:
    """What the values in mask files mean.

    Attributes:
        ignore_index: Value that means ignore, beside 255.
        colours: Class index of each (red, green, blue), where masks are colour-coded.
        classes: Names of the files' indices, where the model's classes are others, since chosen ones were merged.
        foreground: Those that became the model's class 1; None where nothing was merged.
    """

    ignore_index: int = IGNORE_INDEX
    colours: Mapping[Colour, int] | None = None
    classes: tuple[str, ...] = ()
    foreground: tuple[str, ...] | None = None

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> MaskFormat:
        """Return the format from the plain data of `to_dict`."""
        table, foreground = content.get("colours"), content.get("foreground")
        return cls(
            ignore_index=int(content.get("ignore_index", IGNORE_INDEX)),
            colours=None if table is None else {(int(r), int(g), int(b)): int(index) for r, g, b, index in table},
            classes=tuple(content.get("classes", ())),
            foreground=None if foreground is None else tuple(foreground),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for a checkpoint or an exported model."""
        return {
            "ignore_index": self.ignore_index,
            "colours": None if self.colours is None else [[*colour, index] for colour, index in self.colours.items()],
            "classes": list(self.classes),
            "foreground": None if self.foreground is None else list(self.foreground),
        }

    def read(self, path: str | Path, num_classes: int) -> np.ndarray:
        """Return the mask in a file as uint8 ``[H, W]``, indices of the model's classes; ignored pixels are 255.

        Args:
            path: The file.
            num_classes: Classes of the model.

        Raises:
            DatasetError: As `reading.read_mask`.
        """
        number = num_classes if self.foreground is None else len(self.classes)
        mask = read_mask(path, num_classes=number, ignore_index=self.ignore_index, colours=self.colours)
        return mask if self.foreground is None else foreground_lookup(self.classes, self.foreground)[mask]


def foreground_lookup(classes: Sequence[str], foreground: Sequence[str]) -> np.ndarray:
    """Return for each mask value 0..255 the value after merging: 1 for the named classes, 255 for ignore, else 0.

    Raises:
        DatasetError: If a name is no class, or none is named.
    """
    unknown = [name for name in foreground if name not in classes]
    if unknown or not foreground:
        msg = f"foreground={list(foreground)} must name classes of the dataset, which are {list(classes)}."
        raise DatasetError(msg)
    lookup = np.zeros(256, dtype=np.uint8)
    lookup[[classes.index(name) for name in foreground]] = 1
    lookup[IGNORE_INDEX] = IGNORE_INDEX
    return lookup
