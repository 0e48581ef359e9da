# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""How the files of a dataset make items; it travels with a model, so that prediction reads as training did."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .errors import DatasetError
from .mask_format import MaskFormat
from .reading import read_illuminations


@dataclass(frozen=True)
class FileFormat:
    """Suffixes of the files that make one item, and the bits of a 16-bit file.

    Attributes:
        illuminations: Suffixes such as ("_ch0", "_ch1"); empty where one file is one item.
        bit_depth: Bits that the camera uses of a 16-bit file; None for all.
        masks: How mask files are coded.
    """

    illuminations: tuple[str, ...] = ()
    bit_depth: int | None = None
    masks: MaskFormat = field(default_factory=MaskFormat)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> FileFormat:
        """Return the format from the plain data of `to_dict`."""
        masks = MaskFormat.from_dict(content.get("masks", {}))
        return cls(tuple(content.get("illuminations", ())), content.get("bit_depth"), masks)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for a checkpoint or an exported model."""
        return {
            "illuminations": list(self.illuminations),
            "bit_depth": self.bit_depth,
            "masks": self.masks.to_dict(),
        }

    def stem(self, path: str | Path) -> str:
        """Return the file's name without its suffix and without the illumination's."""
        name = Path(path).stem
        return next((name.removesuffix(light) for light in self.illuminations if name.endswith(light)), name)

    def files(self, path: str | Path) -> list[Path]:
        """Return the files of the item that ``path``, any one of its illuminations, belongs to.

        Raises:
            DatasetError: If the name has none of the suffixes, or the file of another illumination is missing.
        """
        path = Path(path)
        if not self.illuminations:
            return [path]
        if self.stem(path) == path.stem:
            msg = (
                f"{path}: the model was trained on the illuminations {list(self.illuminations)}, which end the names "
                "of an item's files; this name ends with none of them."
            )
            raise DatasetError(msg)
        files = [path.with_name(f"{self.stem(path)}{light}{path.suffix}") for light in self.illuminations]
        for file in files:
            if not file.is_file():
                msg = f"{file}: this illumination's file is missing beside {path.name}."
                raise DatasetError(msg)
        return files

    def read(self, path: str | Path) -> np.ndarray:
        """Return the item that the file belongs to, float32 planes ``[C, H, W]`` in [0, 1].

        Raises:
            DatasetError: As `files` and `read_illuminations`.
        """
        return read_illuminations(self.files(path), self.bit_depth)
