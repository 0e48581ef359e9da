# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""How the files of a dataset make items; it travels with a model, so that prediction reads as training did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from anomalib_aoissl.plugin.removed_arguments import had_arguments, renamed_attribute

from ..errors import DatasetError
from ..reading import (
    IMAGE_SUFFIXES,
    ColorOrder,
    pack_channels,
    planes_of_array,
    read_lighting_channels,
    validate_bit_depth,
    with_planes,
)
from .mask_format import MaskFormat

OLD_NAMES = {"illuminations": "lighting_channels"}
"""New names of arguments, and of keys in files, that versions up to 0.2.0 called otherwise."""


@had_arguments(moved=OLD_NAMES)
@dataclass(frozen=True)
class FileFormat:
    """Suffixes of the files that make one item, the bits of a 16-bit file, and the planes of each file.

    Attributes:
        lighting_channels: Suffixes of an item's files, such as ("_ch0", "_ch1"); empty where one file is one item.
        bit_depth: Bits that the camera uses of a 16-bit file, 8 to 16; None for all.
        planes: Planes of each of an item's files, as its dataset's training pictures have them, so that they depend
            on no single picture's values; None where no dataset was seen.
        masks: How mask files are coded.

    Raises:
        ValueError: If a suffix or the bit depth is none.
    """

    lighting_channels: tuple[str, ...] = ()
    bit_depth: int | None = None
    planes: tuple[int, ...] | None = None
    masks: MaskFormat = field(default_factory=MaskFormat)
    illuminations = renamed_attribute("illuminations", "lighting_channels")

    def __post_init__(self) -> None:
        validate_suffixes(self.lighting_channels)
        validate_bit_depth(self.bit_depth)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> FileFormat:
        """Return the format from the plain data of `to_dict`, as this version or an earlier one wrote it."""
        content = {OLD_NAMES.get(key, key): value for key, value in content.items()}
        planes, suffixes = content.get("planes"), tuple(content.get("lighting_channels", ()))
        masks = MaskFormat.from_dict(content.get("masks", {}))
        return cls(suffixes, content.get("bit_depth"), None if planes is None else tuple(planes), masks)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for a checkpoint or an exported model."""
        return {
            "lighting_channels": list(self.lighting_channels),
            "bit_depth": self.bit_depth,
            "planes": None if self.planes is None else list(self.planes),
            "masks": self.masks.to_dict(),
        }

    @property
    def num_planes(self) -> int | None:
        """Planes of an item after packing, what a model takes as ``in_channels``; None where no dataset was seen."""
        return None if self.planes is None else max(3, sum(self.planes))

    def stem(self, path: str | Path) -> str:
        """Return the file's name without its suffix and without the lighting channel's."""
        name = Path(path).stem
        return next((name.removesuffix(suffix) for suffix in self.lighting_channels if name.endswith(suffix)), name)

    def files(self, path: str | Path) -> list[Path]:
        """Return the files of the item that ``path``, any one of its lighting channels, belongs to.

        Raises:
            DatasetError: If the name has none of the suffixes, or the file of another lighting channel is missing.
        """
        path = Path(path)
        if not self.lighting_channels:
            return [path]
        if self.stem(path) == path.stem:
            msg = (
                f"{path}: the model was trained on the lighting channels {list(self.lighting_channels)}, which end the "
                "names of an item's files. This name ends with none of them."
            )
            raise DatasetError(msg)
        return [self._channel_file(path, suffix) for suffix in self.lighting_channels]

    def _channel_file(self, path: Path, suffix: str) -> Path:
        """Return the file of one lighting channel of the item, of any suffix of pictures."""
        own = path.with_name(f"{self.stem(path)}{suffix}{path.suffix}")
        if own.is_file():
            return own
        others = [own.with_suffix(kind) for kind in IMAGE_SUFFIXES if own.with_suffix(kind).is_file()]
        if len(others) != 1:
            found = f"; there are {[other.name for other in others]}" if others else ""
            msg = f"{own}: this lighting channel's file is missing beside {path.name}{found}."
            raise DatasetError(msg)
        return others[0]

    def read(self, path: str | Path) -> np.ndarray:
        """Return the item that the file belongs to, float32 planes ``[C, H, W]`` in [0, 1].

        Raises:
            DatasetError: As `files` and `read_lighting_channels`.
        """
        return self.read_files(self.files(path))

    def read_files(self, paths: Sequence[str | Path]) -> np.ndarray:
        """Return the item of these files, one for each lighting channel, float32 planes ``[C, H, W]`` in [0, 1].

        Raises:
            DatasetError: As `read_lighting_channels`.
        """
        return read_lighting_channels(paths, self.bit_depth, self.planes)

    def read_array(self, image: np.ndarray, color_order: ColorOrder = "rgb") -> np.ndarray:
        """Return an array of a camera as planes, float32 ``[C, H, W]`` in [0, 1], as its file would be read.

        Args:
            image: ``[H, W]`` or ``[H, W, C]``; C colours, or the planes of all lighting channels one after the other.
                The fourth of four is left out as a file's alpha is, where a file of the training has three planes.
            color_order: "rgb", or "bgr" for what OpenCV reads.

        Raises:
            TypeError: As `planes_of_array`.
            ValueError: As `planes_of_array`, and if the channels are not those of the lighting channels.
        """
        if self.planes == (3,) and isinstance(image, np.ndarray) and image.ndim == 3 and image.shape[-1] == 4:
            image = image[..., :3]
        planes = planes_of_array(image, self.bit_depth, color_order)
        files, total = len(self.planes or ()), sum(self.planes or ())
        if files == 1:
            planes = with_planes(planes, total, f"An array {image.shape}")
        elif files > 1 and len(planes) != total:
            msg = (
                f"The array has {len(planes)} channels, but the model was trained on {files} pictures of an item, "
                f"{total} planes in all ({', '.join(self.lighting_channels) or 'pages of a file'}). Give them as "
                f"[H, W, {total}]."
            )
            raise ValueError(msg)
        return pack_channels(planes)


def validate_suffixes(lighting_channels: Sequence[str]) -> tuple[str, ...]:
    """Return the suffixes.

    Raises:
        ValueError: If they are one text, one is no text or empty, or one ends with another.
    """
    names = tuple(lighting_channels)
    if isinstance(lighting_channels, str) or any(not isinstance(name, str) or not name for name in names):
        msg = f"lighting_channels={lighting_channels!r} must be a list of suffixes, such as [_ch0, _ch1]."
        raise ValueError(msg)
    for index, name in enumerate(names):
        other = next((other for i, other in enumerate(names) if i != index and other.endswith(name)), None)
        if other is not None:
            msg = f"lighting_channels={list(names)}: {other!r} ends with {name!r}, so that a file could be of both."
            raise ValueError(msg)
    return names


WHOLE_FILES = FileFormat()
"""One file is one item, with all of its bits."""
