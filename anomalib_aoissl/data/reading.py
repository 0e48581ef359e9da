# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Files to arrays: images of any bit depth, illuminations packed to planes, class-index masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import tifffile
from PIL import Image as PILImage

from .errors import DatasetError
from .indices import IGNORE_INDEX

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff")
_TIFF_SUFFIXES = (".tif", ".tiff")
_PNG_BIT_DEPTH_OFFSET = 24  # PNG specification: signature 8, IHDR length and type 8, width and height 8

Colour = tuple[int, int, int]


def image_size(path: str | Path) -> tuple[int, int]:
    """Return (height, width) in px from the file's header, without decoding the picture.

    Raises:
        DatasetError: If the file is missing or no readable image.
    """
    path = Path(path)
    try:
        if path.suffix.lower() in _TIFF_SUFFIXES:
            with tifffile.TiffFile(path) as tiff:
                page = tiff.pages.first
                return int(page.imagelength), int(page.imagewidth)
        with PILImage.open(path) as image:
            return image.height, image.width
    except (OSError, ValueError, tifffile.TiffFileError) as error:
        raise _unreadable(path, error) from error


def read_image(path: str | Path, bit_depth: int | None = None) -> np.ndarray:
    """Return the picture as float32 ``[C, H, W]`` in [0, 1]; C is 1 for grey, 3 for colour; alpha is dropped.

    8-bit values are divided by 255, 16-bit values by 65535 or, with ``bit_depth``, by ``2 ** bit_depth - 1``: a
    12-bit camera writes 0..4095 into a 16-bit file.

    Args:
        path: PNG, JPEG, BMP or TIFF file; grey, RGB, RGBA or palette.
        bit_depth: Bits that the camera uses of a 16-bit file, 9 to 16.

    Raises:
        DatasetError: If the file is missing, truncated, no image, of another type than 8 or 16 bit, or holds a
            value that ``bit_depth`` does not allow.
    """
    path = Path(path)
    array = _read_tiff(path) if path.suffix.lower() in _TIFF_SUFFIXES else _read_with_pillow(path)
    if array.ndim == 2:
        array = array[..., np.newaxis]
    if array.shape[-1] in {2, 4}:  # grey or colour with alpha
        array = array[..., :-1]
    return np.ascontiguousarray(_scale(array, path, bit_depth).transpose(2, 0, 1))  # [C, H, W]


def pack_channels(channels: np.ndarray) -> np.ndarray:
    """Return illumination channels ``[L, H, W]`` as planes: 1 -> (a, a, a), 2 -> (a, b, (a+b)/2), more as they are.

    An encoder for colour pictures then reads one or two lights without a new first layer.
    """
    if len(channels) == 1:
        return np.repeat(channels, 3, axis=0)
    if len(channels) == 2:
        return np.concatenate([channels, channels.mean(axis=0, keepdims=True, dtype=channels.dtype)])
    return channels


def read_illuminations(paths: Sequence[str | Path], bit_depth: int | None = None) -> np.ndarray:
    """Return the files of one item, one for each light, packed to float32 planes ``[P, H, W]`` in [0, 1].

    A file whose colour planes are equal counts as one grey channel.

    Raises:
        DatasetError: As `read_image`, and if two files differ in size.
    """
    images = [read_image(path, bit_depth) for path in paths]
    for path, image in zip(paths[1:], images[1:], strict=True):
        if image.shape[1:] != images[0].shape[1:]:
            msg = (
                f"{path}: the illuminations of one item must have one size, got {_size(image)} here and "
                f"{_size(images[0])} in {Path(paths[0]).name}."
            )
            raise DatasetError(msg)
    if len(images) > 1:
        images = [_grey_if_equal(image) for image in images]
    return pack_channels(np.concatenate(images))


def read_mask(
    path: str | Path,
    *,
    num_classes: int | None = None,
    ignore_index: int = IGNORE_INDEX,
    colours: Mapping[Colour, int] | None = None,
) -> np.ndarray:
    """Return the class-index mask as uint8 ``[H, W]``; ignored pixels are 255.

    Args:
        path: Index file (grey or palette, where the index is the class), or a colour-coded one with ``colours``.
        num_classes: C; every index must lie in 0..C-1 or be the ignore index.
        ignore_index: Value that means ignore in the file.
        colours: Class index of each (red, green, blue) of a colour-coded mask.

    Raises:
        DatasetError: If the file is unreadable or lossy, a colour is unknown, or an index has no class.
    """
    path = Path(path)
    if path.suffix.lower() not in MASK_SUFFIXES:
        msg = f"{path}: a mask must be a lossless file ({', '.join(MASK_SUFFIXES)}); write its class indices as PNG."
        raise DatasetError(msg)
    indices = _mask_indices(path, colours)
    mask = np.where(indices == ignore_index, IGNORE_INDEX, indices)
    _check_classes(mask, path, num_classes)
    return mask.astype(np.uint8)


def _read_with_pillow(path: Path) -> np.ndarray:
    """Return an 8- or 16-bit array ``[H, W]`` or ``[H, W, C]`` of a PNG, JPEG or BMP."""
    try:
        with PILImage.open(path) as image:
            image.load()  # a truncated file fails here; OpenCV would return it half grey
            if image.mode in {"RGB", "RGBA", "LA"} and _is_16_bit_png(path):
                return _read_16_bit_colour(path)
            if image.mode in {"L", "LA", "RGB", "RGBA"} or image.mode.startswith("I"):
                return np.array(image)
            return np.array(image.convert("L" if image.mode == "1" else "RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise _unreadable(path, error) from error


def _is_16_bit_png(path: Path) -> bool:
    """Tell whether a PNG stores 16 bits a channel; Pillow gives colour files of that kind as 8 bit in silence."""
    with path.open("rb") as file:
        header = file.read(_PNG_BIT_DEPTH_OFFSET + 1)
    return header.startswith(b"\x89PNG") and header[_PNG_BIT_DEPTH_OFFSET] == 16


def _read_16_bit_colour(path: Path) -> np.ndarray:
    """Return a 16-bit colour PNG as ``[H, W, C]`` in the order red, green, blue."""
    array = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if array is None:
        msg = "OpenCV cannot decode it"
        raise ValueError(msg)
    array[..., :3] = array[..., 2::-1].copy()
    return array


def _read_tiff(path: Path) -> np.ndarray:
    """Return the first page of a TIFF as ``[H, W]`` or ``[H, W, C]``."""
    try:
        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages.first
            if page.photometric == tifffile.PHOTOMETRIC.PALETTE:
                return _read_with_pillow(path)
            array = page.asarray()
            planar = page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and array.ndim == 3
            white_is_zero = page.photometric == tifffile.PHOTOMETRIC.MINISWHITE
    except (OSError, ValueError, RuntimeError, tifffile.TiffFileError) as error:
        raise _unreadable(path, error) from error
    if planar:
        array = np.moveaxis(array, 0, -1)
    return np.iinfo(array.dtype).max - array if white_is_zero and array.dtype.kind == "u" else array


def _scale(array: np.ndarray, path: Path, bit_depth: int | None) -> np.ndarray:
    """Return the values as float32 in [0, 1] by their true range."""
    if array.dtype == np.int32:  # how Pillow gives some 16-bit files
        array = array.astype(np.uint16) if array.size and array.min() >= 0 and array.max() <= 65535 else array
    if array.dtype == np.uint8:
        return array.astype(np.float32) / 255.0
    if array.dtype == np.uint16:
        largest = 65535 if bit_depth is None else 2**bit_depth - 1
        if array.size and array.max() > largest:
            msg = f"{path}: holds the value {array.max()}, more than bit_depth={bit_depth} allows ({largest})."
            raise DatasetError(msg)
        return array.astype(np.float32) / largest
    if array.dtype.kind == "f" and array.size and array.min() >= 0 and array.max() <= 1:
        return array.astype(np.float32)
    msg = f"{path}: pixels must be 8- or 16-bit unsigned integers, or floats in [0, 1]; got {array.dtype}."
    raise DatasetError(msg)


def _mask_indices(path: Path, colours: Mapping[Colour, int] | None) -> np.ndarray:
    """Return the values of a mask file as int64 ``[H, W]``."""
    try:
        with PILImage.open(path) as image:
            image.load()
            if image.mode in {"1", "L", "P"} or image.mode.startswith("I"):
                return np.array(image).astype(np.int64)
            rgb = np.array(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise _unreadable(path, error) from error
    if colours is not None:
        return _indices_of_colours(rgb, path, colours)
    if (rgb[..., 0] == rgb[..., 1]).all() and (rgb[..., 0] == rgb[..., 2]).all():
        return rgb[..., 0].astype(np.int64)
    msg = (
        f"{path}: the mask is colour-coded. Write class indices (0 background, 1..C-1) as a grey or palette PNG, or "
        'name the colours in dataset.json: "colours": {"class name": [red, green, blue], ...}.'
    )
    raise DatasetError(msg)


def _indices_of_colours(rgb: np.ndarray, path: Path, colours: Mapping[Colour, int]) -> np.ndarray:
    """Return the class index of each pixel of a colour-coded mask."""
    codes = _colour_code(rgb.astype(np.int64))  # [H, W]
    indices = np.full(codes.shape, -1, dtype=np.int64)
    for colour, index in colours.items():
        indices[codes == _colour_code(np.array(colour, dtype=np.int64))] = index
    if (indices < 0).any():
        row, column = np.argwhere(indices < 0)[0]
        msg = (
            f"{path}: the colour {tuple(int(v) for v in rgb[row, column])} at row {row}, column {column} is not in the "
            f"colour table of dataset.json, which has {sorted(colours)}."
        )
        raise DatasetError(msg)
    return indices


def _colour_code(rgb: np.ndarray) -> np.ndarray:
    """Return one number for each (red, green, blue)."""
    return (rgb[..., 0] << 16) | (rgb[..., 1] << 8) | rgb[..., 2]


def _check_classes(mask: np.ndarray, path: Path, num_classes: int | None) -> None:
    """Refuse an index that no class has."""
    allowed = 255 if num_classes is None else num_classes
    wrong = ((mask < 0) | (mask >= allowed)) & (mask != IGNORE_INDEX)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        msg = (
            f"{path}: the class index {mask[row, column]} at row {row}, column {column} has no name; "
            f"{allowed} classes are named (0..{allowed - 1}, 255 is ignored). Name it in dataset.json, classes.txt or "
            "the argument classes, or mend the mask."
        )
        raise DatasetError(msg)


def _grey_if_equal(image: np.ndarray) -> np.ndarray:
    """Return one plane where all planes are equal, else the image."""
    return image[:1] if len(image) == 3 and (image == image[:1]).all() else image


def _size(image: np.ndarray) -> str:
    """Return the size as text, height x width."""
    return f"{image.shape[1]}x{image.shape[2]}"


def _unreadable(path: Path, error: Exception) -> DatasetError:
    """Return the error for a file that is missing or cannot be decoded."""
    if not path.exists():
        return DatasetError(f"{path}: the file does not exist.")
    return DatasetError(f"{path}: cannot be read as an image ({error}). Is it truncated, or no image at all?")
