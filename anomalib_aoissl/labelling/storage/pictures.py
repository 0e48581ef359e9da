# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Pictures as the page shows them: tiles of a lighting channel within a window, and small ones for the gallery."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from anomalib_aoissl.data.errors import DatasetError
from anomalib_aoissl.data.reading import image_size, read_image

from .folder import LabelFolder
from .in_memory import Held
from .listing import Picture
from .problems import Problem

TILE = 1024
"""Pixels across, and down, of a tile on the screen."""

_HELD = 400_000_000  # bytes of decoded pictures
_THUMBNAIL = 144  # px
_EIGHT_BITS, _SIXTEEN_BITS = 255, 65535


@dataclass(frozen=True)
class Channel:
    """What one sees of a picture at a time.

    Attributes:
        name: Its name on the page.
        values: ``[H, W]`` or ``[H, W, 3]``, uint8 or uint16.
        window: The (low, high) values, as shares of the largest, that are shown black and white at first.
    """

    name: str
    values: np.ndarray
    window: tuple[float, float]


class DecodedPictures:
    """Decoded pictures of a folder; those seen last stay in memory.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: LabelFolder) -> None:
        self.folder = folder
        self._held: Held[list[Channel]] = Held(_HELD)
        self._lock = threading.Lock()

    def describe(self, name: str) -> dict[str, Any]:
        """Return size, channels and version of a picture.

        Raises:
            Problem: If it is gone, or cannot be read.
        """
        picture = self.folder.picture(name)
        channels = self._channels(picture)
        height, width = channels[0].values.shape[:2]
        return {
            "name": name,
            "version": picture.version,
            "width": width,
            "height": height,
            "tile": TILE,
            "channels": [{"name": one.name, "bits": self._bits(one), "window": one.window} for one in channels],
        }

    def tile(self, name: str, channel: int, place: tuple[int, int, int], window: tuple[float, float]) -> bytes:
        """Return a tile as PNG.

        Args:
            name: The picture.
            channel: Number of the lighting channel.
            place: Level (each halves the resolution), column and row of the tile.
            window: Shares (low, high) of the largest value that become black and white.

        Raises:
            Problem: If there is no such tile.
        """
        channels = self._channels(self.folder.picture(name))
        level, column, row = place
        if not 0 <= channel < len(channels) or not 0 <= level < 16 or min(column, row) < 0:
            msg = "There is no such tile."
            raise Problem(msg, 404)
        side = TILE << level
        cut = channels[channel].values[row * side : (row + 1) * side, column * side : (column + 1) * side]
        if not cut.size:
            msg = "There is no such tile."
            raise Problem(msg, 404)
        if level:
            size = (max(1, cut.shape[1] >> level), max(1, cut.shape[0] >> level))
            cut = cv2.resize(cut, size, interpolation=cv2.INTER_AREA)
        return _png(_windowed(cut, window))

    def thumbnail(self, name: str) -> bytes:
        """Return a small JPEG of a picture's first channel."""
        channel = self._channels(self.folder.picture(name))[0]
        height, width = channel.values.shape[:2]
        scale = _THUMBNAIL / max(height, width)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        small = cv2.resize(channel.values, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST)
        shown = _windowed(small, channel.window)
        return bytes(cv2.imencode(".jpg", _bgr(shown), [cv2.IMWRITE_JPEG_QUALITY, 80])[1])

    def _bits(self, channel: Channel) -> int:
        """Return the bits of a channel's values: those that were said of the files, where they have more than 8."""
        stored = 8 * channel.values.dtype.itemsize
        return stored if stored == 8 else self.folder.file_format.bit_depth or stored

    def _channels(self, picture: Picture) -> list[Channel]:
        """Return the channels of a picture, read where they are not in memory."""
        with self._lock:
            channels = self._held.get(picture.name, picture.version)
            if channels is None:
                form = self.folder.file_format
                try:
                    channels = read_channels(picture.files, form.bit_depth, form.lighting_channels)
                except (DatasetError, OSError) as error:
                    raise Problem(str(error)) from error
                size = sum(one.values.nbytes for one in channels)
                self._held.put(picture.name, picture.version, channels, size)
            return channels


def read_channels(
    files: tuple[Path, ...], bit_depth: int | None, lighting_channels: Sequence[str] = ()
) -> list[Channel]:
    """Return what can be seen of an item: each grey plane, and colours together.

    Args:
        files: One of each lighting channel.
        bit_depth: Bits of their values; None for those of the files.
        lighting_channels: Suffix of each lighting channel, by which it is named.

    Raises:
        DatasetError: If a file cannot be read, or differs in size from the first.
    """
    size = image_size(files[0])
    channels: list[Channel] = []
    for number, path in enumerate(files):
        planes = read_image(path, bit_depth)
        if planes.shape[1:] != size:
            msg = f"{path.name}: has another size than {files[0].name}. All lighting channels of an item need one."
            raise DatasetError(msg)
        said = lighting_channels[number].strip("_-. ") if number < len(lighting_channels) else ""
        label = (said or f"channel {number + 1}") if len(files) > 1 else ""
        if len(planes) == 3:
            colours = _stored(planes)
            channels.append(Channel(label or "colour", np.ascontiguousarray(colours.transpose(1, 2, 0)), (0.0, 1.0)))
            continue
        for index, plane in enumerate(planes):
            name = f"{label or 'plane'} {index + 1}".strip() if len(planes) > 1 else label or "grey"
            values = _stored(plane)
            channels.append(Channel(name, values, _window(values)))
    return channels


def _stored(planes: np.ndarray) -> np.ndarray:
    """Return values in [0, 1] as uint8 where they came from 8 bits, else as uint16."""
    scaled = planes * np.float32(_EIGHT_BITS)
    whole = np.rint(scaled)
    if np.abs(scaled - whole).max() < 1e-3:
        return whole.astype(np.uint8)
    return np.rint(planes * np.float32(_SIXTEEN_BITS)).astype(np.uint16)


def _window(values: np.ndarray) -> tuple[float, float]:
    """Return the shares of the largest value between which nearly all values of 16 bits lie; all of 8 bits."""
    if values.dtype == np.uint8:
        return 0.0, 1.0
    low, high = np.percentile(values[:: max(1, len(values) // 500), :: max(1, values.shape[1] // 500)], (0.5, 99.5))
    return round(float(low) / _SIXTEEN_BITS, 4), round(max(float(high), float(low) + 16) / _SIXTEEN_BITS, 4)


def _windowed(values: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    """Return values as uint8, the window's ends black and white."""
    low, high = window
    if values.dtype == np.uint8 and (low, high) == (0.0, 1.0):
        return values
    largest = _EIGHT_BITS if values.dtype == np.uint8 else _SIXTEEN_BITS
    scale = 255.0 / max((high - low) * largest, 1e-3)
    shown: np.ndarray = np.clip((values.astype(np.float32) - low * largest) * scale, 0, 255).astype(np.uint8)
    return shown


def _png(image: np.ndarray) -> bytes:
    """Return an image as PNG, fast rather than small."""
    return bytes(cv2.imencode(".png", _bgr(image), [cv2.IMWRITE_PNG_COMPRESSION, 1])[1])


def _bgr(image: np.ndarray) -> np.ndarray:
    """Return an image in OpenCV's order of colours."""
    return np.ascontiguousarray(image[..., ::-1]) if image.ndim == 3 else image
