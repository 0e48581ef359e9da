# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Pictures to planes: files and arrays of any bit depth, lighting channels packed for an encoder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from anomalib_aoissl.data.errors import DatasetError

from .pillow_files import orientation_of_file, read_file, size_of_file
from .raster import Raster, file_kind, naming
from .tiff_files import orientation_of_tiff, read_tiff, size_of_tiff

ColorOrder = Literal["rgb", "bgr"]

_Told = TypeVar("_Told")

logger = logging.getLogger(__name__)

_said: dict[tuple[Path, int], object] = {}  # folders and numbers of pages that were warned of


def image_size(path: str | Path) -> tuple[int, int]:
    """Return (height, width) in px of the picture as a viewer shows it, turned by its orientation tag.

    Raises:
        DatasetError: If the file is missing or no readable image.
    """
    return _told(Path(path), size_of_tiff, size_of_file)


def orientation_of(path: str | Path) -> int:
    """Return the orientation tag of a file, 1 to 8; 1 where it has none, or says that the picture is upright.

    Raises:
        DatasetError: If the file is missing or no readable image.
    """
    return _told(Path(path), orientation_of_tiff, orientation_of_file)


def turn_shows_in_size(orientation: int, size: tuple[int, int]) -> bool:
    """Return whether a mask that an orientation tag has not turned differs in size from its picture that it has turned.

    Args:
        orientation: The picture's tag, 1 to 8.
        size: Its (height, width), px.
    """
    return orientation > 4 and size[0] != size[1]


def _told(path: Path, of_tiff: Callable[[Path], _Told], of_file: Callable[[Path, str], _Told]) -> _Told:
    """Return what the header of a file says, by the reader of its kind; errors name the file."""
    with naming(path):
        kind = file_kind(path)
        return of_tiff(path) if kind == "tiff" else of_file(path, kind)


def read_image(path: str | Path, bit_depth: int | None = None) -> np.ndarray:
    """Return the picture as float32 ``[C, H, W]`` in [0, 1], turned upright by its orientation tag.

    C is 1 for grey, 3 for colour (red, green, blue), and more for further samples or pages; alpha is dropped. Several
    pages are warned of, once for each folder. Values of up to 8 bits are divided by the largest of their bits, those of
    16 bits by 65535 or, with ``bit_depth``, by ``2 ** bit_depth - 1``: a 12-bit camera writes 0..4095 into a 16-bit
    file.

    Args:
        path: PNG, JPEG, BMP or TIFF file; its content counts, not its suffix.
        bit_depth: Bits that the camera uses of a 16-bit file, 8 to 16.

    Raises:
        DatasetError: If the file is missing, truncated or no image, would be read wrong, or holds a value that is
            not finite, not in [0, 1] (floats), or more than ``bit_depth`` allows.
        ValueError: If ``bit_depth`` is out of its range.
    """
    path = Path(path)
    validate_bit_depth(bit_depth)
    with naming(path):
        planes = [_planes(raster, str(path), bit_depth) for raster in read_rasters(path)]
    if len(planes) == 1:
        return planes[0]
    _say_pages(path, len(planes))
    return np.concatenate(planes)


def _say_pages(path: Path, count: int) -> None:
    """Warn once for each folder and number of pages: nothing in a file says whether its pages are of one picture."""
    mine = object()
    if _said.setdefault((path.parent, count), mine) is not mine:  # several threads read files
        return
    logger.warning(
        "%s: its %d pages are read as planes of one picture, as lighting channels are; so are those of other files in "
        "this folder. If the pages are pictures of their own, save each as a file.",
        path,
        count,
    )


def read_rasters(path: Path) -> list[Raster]:
    """Return the pages of a picture file; to be called where errors are named."""
    kind = file_kind(path)
    return read_tiff(path) if kind == "tiff" else [read_file(path, kind)]


def planes_of_array(image: np.ndarray, bit_depth: int | None = None, color_order: ColorOrder = "rgb") -> np.ndarray:
    """Return an array ``[H, W]`` or ``[H, W, C]`` as float32 planes ``[C, H, W]`` in [0, 1], scaled as a file's values.

    Args:
        image: uint8, uint16 or float in [0, 1]; C colours or lighting channels.
        bit_depth: Bits that the camera uses of 16.
        color_order: "rgb", or "bgr" for what OpenCV reads: the first three of 3 or 4 channels are then swapped.

    Raises:
        TypeError: If it is no array, one of another type, or of floats beyond [0, 1].
        ValueError: If its shape is another, or a value is not finite or more than ``bit_depth`` allows.
    """
    if color_order not in {"rgb", "bgr"}:
        msg = f"color_order={color_order!r} must be 'rgb' or 'bgr' (what OpenCV reads)."
        raise ValueError(msg)
    if not isinstance(image, np.ndarray):
        msg = f"An image must be a path or a numpy.ndarray, got {type(image).__name__}."
        raise TypeError(msg)
    array = image[..., np.newaxis] if image.ndim == 2 else image
    if array.ndim != 3 or 0 in array.shape:
        msg = f"An image must have the shape [H, W] or [H, W, C], got {image.shape}."
        raise ValueError(msg)
    if array.dtype not in (np.uint8, np.uint16) and array.dtype.kind != "f":
        msg = f"An image must be uint8, uint16, or float in [0, 1]; got {array.dtype}."
        raise TypeError(msg)
    if array.dtype.kind == "f" and np.isfinite(array).all() and (array.min() < 0 or array.max() > 1):
        given = f"{array.dtype} from {array.min():g} to {array.max():g}"
        msg = f"An image must be uint8, uint16, or float in [0, 1]; got {given}."
        raise TypeError(msg)
    if color_order == "bgr" and array.shape[-1] in {3, 4}:
        array = array[..., [2, 1, 0, *range(3, array.shape[-1])]]
    bits = 8 * array.dtype.itemsize if array.dtype.kind == "u" else None
    return _scaled(array, bits, "The array", bit_depth)


def pack_channels(channels: np.ndarray) -> np.ndarray:
    """Return lighting channels ``[L, H, W]`` as planes: 1 -> (a, a, a), 2 -> (a, b, (a+b)/2), more as they are.

    An encoder for colour pictures then reads one or two of them without a new first layer.
    """
    if len(channels) == 1:
        return np.repeat(channels, 3, axis=0)
    if len(channels) == 2:
        return np.concatenate([channels, channels.mean(axis=0, keepdims=True, dtype=channels.dtype)])
    return channels


def read_lighting_channels(
    paths: Sequence[str | Path], bit_depth: int | None = None, planes: Sequence[int] | None = None
) -> np.ndarray:
    """Return the files of one item, one for each lighting channel, packed to float32 planes ``[P, H, W]`` in [0, 1].

    Args:
        paths: The files.
        bit_depth: Bits that the camera uses of a 16-bit file, 8 to 16.
        planes: Planes of each file, as the dataset's training pictures have them; without it a file whose three
            planes are equal counts as one where there are several files.

    Raises:
        DatasetError: As `read_image`, if two files differ in size, or one has other planes than it should.
    """
    images = [read_image(path, bit_depth) for path in paths]
    check_one_size(paths, images)
    if planes is not None:
        images = [with_planes(*item) for item in zip(images, planes, paths, strict=True)]
    elif len(images) > 1:
        images = [image[:1] if is_grey(image) else image for image in images]
    return pack_channels(np.concatenate(images) if len(images) > 1 else images[0])


def check_one_size(paths: Sequence[str | Path], images: Sequence[np.ndarray]) -> None:
    """Validate that the files of one item, ``[C, H, W]`` each, have one size.

    Raises:
        DatasetError: Naming the file that differs.
    """
    for path, image in zip(paths[1:], images[1:], strict=True):
        if image.shape[1:] != images[0].shape[1:]:
            msg = (
                f"{path}: the lighting channels of one item must have one size, got {_size(image)} here and "
                f"{_size(images[0])} in {Path(paths[0]).name}."
            )
            raise DatasetError(msg)


def is_grey(image: np.ndarray) -> bool:
    """Tell whether a picture ``[C, H, W]`` is grey: one plane, or three equal ones."""
    return len(image) == 1 or (len(image) == 3 and bool((image == image[:1]).all()))


def validate_bit_depth(bit_depth: int | None) -> int | None:
    """Return the bit depth.

    Raises:
        ValueError: If it is no whole number from 8 to 16.
    """
    if bit_depth is None or (isinstance(bit_depth, int) and not isinstance(bit_depth, bool) and 8 <= bit_depth <= 16):
        return bit_depth
    msg = (
        f"bit_depth={bit_depth!r} must be a whole number from 8 to 16, the bits that the camera uses of a 16-bit file."
    )
    raise ValueError(msg)


def with_planes(image: np.ndarray, planes: int, path: str | Path) -> np.ndarray:
    """Return a picture ``[C, H, W]`` with as many planes as the training pictures of its lighting channel.

    Raises:
        DatasetError: If it is of another kind.
    """
    if len(image) == planes:
        return image
    if planes == 3 and len(image) == 1:
        return np.repeat(image, 3, axis=0)
    if planes == 1 and is_grey(image):
        return image[:1]
    kinds = {1: "grey", 3: "colour"}
    msg = (
        f"{path}: has {len(image)} planes ({kinds.get(len(image), 'more')}), but the training pictures of its kind "
        f"have {planes} ({kinds.get(planes, 'more')}). Save it as they are, or train anew with such pictures."
    )
    raise DatasetError(msg)


def _planes(raster: Raster, name: str, bit_depth: int | None) -> np.ndarray:
    """Return one page as float32 planes ``[C, H, W]``."""
    if raster.premultiplied and raster.see_through:
        msg = f"{name}: its colours are multiplied by its alpha. Save it without alpha."
        raise DatasetError(msg)
    if raster.palette is not None:
        return _scaled(palette_colours(raster, name), 8, name, None)
    planes = _scaled(raster.samples, raster.bits, name, bit_depth)
    return 1 - planes if raster.white_is_zero else planes


def palette_colours(raster: Raster, name: str) -> np.ndarray:
    """Return ``[H, W, 3]`` uint8 of a page of palette indices.

    Raises:
        DatasetError: If an index lies beyond the palette.
    """
    indices, palette = raster.samples[..., 0], raster.palette
    if palette is None or int(indices.max()) >= len(palette):
        msg = f"{name}: has the palette index {int(indices.max())}, beyond its palette. The file is damaged."
        raise DatasetError(msg)
    return palette[indices]


def _scaled(array: np.ndarray, bits: int | None, name: str, bit_depth: int | None) -> np.ndarray:
    """Return values ``[H, W, C]`` as float32 ``[C, H, W]`` in [0, 1] by their true range."""
    if bits is not None:
        depth = bits if bit_depth is None or bits <= 8 else bit_depth
        largest = (1 << depth) - 1
        if depth < bits and int(array.max()) > largest:
            msg = f"{name}: holds the value {int(array.max())}, more than bit_depth={depth} allows ({largest})."
            raise DatasetError(msg)
        planes = np.ascontiguousarray(array.transpose(2, 0, 1)).astype(np.float32)
        planes /= np.float32(largest)  # in place: a large picture fills a part of the memory
        return planes
    if array.dtype.kind != "f":
        msg = f"{name}: pixels must be 8- or 16-bit unsigned integers, or floats in [0, 1]; got {array.dtype}."
        raise DatasetError(msg)
    if not np.isfinite(array).all():
        row, column = np.argwhere(~np.isfinite(array).all(axis=-1))[0]
        msg = f"{name}: holds NaN or infinity, first at row {row}, column {column}. Fill or mask these pixels first."
        raise DatasetError(msg)
    if array.min() < 0 or array.max() > 1:
        msg = (
            f"{name}: floats must lie in [0, 1], got {array.min():g} to {array.max():g}. Divide them by the camera's "
            "largest value."
        )
        raise DatasetError(msg)
    return np.ascontiguousarray(array.transpose(2, 0, 1), dtype=np.float32)


def _size(image: np.ndarray) -> str:
    """Return the size as text, height x width."""
    return f"{image.shape[1]}x{image.shape[2]}"
