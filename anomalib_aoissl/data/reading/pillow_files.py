# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""PNG, JPEG and BMP files; decoded by Pillow, and by OpenCV where Pillow would give 8 of 16 bits in silence."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL.BmpImagePlugin import BmpImageFile
from PIL.Image import Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from anomalib_aoissl.data.errors import DatasetError

from .raster import Raster, check_size

# The classes themselves: PIL.Image.open tries every format there is, and fails beyond a limit of pixels that is global.
_CLASSES: dict[str, type[ImageFile]] = {"png": PngImageFile, "jpeg": JpegImageFile, "bmp": BmpImageFile}
_PNG_BIT_DEPTH = 24  # PNG specification: signature 8, length and type of IHDR 8, width and height 8
_PNG_COLOUR_TYPE = 25
_PNG_GREY_ALPHA = 4
_ORIENTATION = 0x0112


def size_of_file(path: Path, kind: str) -> tuple[int, int]:
    """Return (height, width) of the upright picture, px; decoded only where the orientation may stand behind it."""
    with _CLASSES[kind](path) as image:
        if image.width != image.height and _orientation(image) > 4:
            return image.width, image.height
        return image.height, image.width


def orientation_of_file(path: Path, kind: str) -> int:
    """Return the orientation tag, 1 where there is none."""
    with _CLASSES[kind](path) as image:
        return _orientation(image)


def read_file(path: Path, kind: str) -> Raster:
    """Return the picture of a PNG, JPEG or BMP.

    Raises:
        DatasetError: If it is too large, or an animation.
    """
    with _CLASSES[kind](path) as image:
        check_size(path, image.height, image.width)
        if getattr(image, "n_frames", 1) > 1:
            msg = f"{path}: is an animation of {image.n_frames} pictures. Save the one that is meant as a PNG file."
            raise DatasetError(msg)
        image.load()  # a truncated file fails here; OpenCV would return it half grey
        raster = _png(path, image) if kind == "png" else _raster(image)
        return raster.upright(_orientation(image))


def _orientation(image: Image) -> int:
    """Return the EXIF orientation, 1 where there is none."""
    value = image.getexif().get(_ORIENTATION, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _png(path: Path, image: Image) -> Raster:
    """Return a PNG with its header's bits: Pillow scales 2 and 4 bits of grey up, and 16 of colour down."""
    with path.open("rb") as file:
        header = file.read(_PNG_COLOUR_TYPE + 1)
    bits, colour_type = header[_PNG_BIT_DEPTH], header[_PNG_COLOUR_TYPE]
    if bits == 16 and image.mode in {"LA", "RGB", "RGBA"}:
        return _sixteen_bit_colour(path, grey=colour_type == _PNG_GREY_ALPHA)
    if bits in {2, 4} and image.mode == "L":
        return Raster(np.array(image)[..., np.newaxis] // (255 // (2**bits - 1)), bits)
    return _raster(image)


def _sixteen_bit_colour(path: Path, *, grey: bool) -> Raster:
    """Return a PNG of 16 bits a sample with colour or alpha."""
    # imdecode, since imread takes no path beyond ASCII on Windows
    array = cv2.imdecode(np.fromfile(path, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if array is None or array.ndim != 3 or array.dtype != np.uint16:
        msg = "OpenCV cannot decode it"
        raise ValueError(msg)
    alpha = array[..., 3] if array.shape[-1] == 4 else None
    colours = array[..., 2:3] if grey else array[..., 2::-1]  # OpenCV has blue, green, red
    return Raster(colours, 16, colour=not grey, alpha=alpha)


def _raster(image: Image) -> Raster:
    """Return a loaded picture; one of an ink or video colour space becomes red, green, blue."""
    lossy = "JPEG" if isinstance(image, JpegImageFile) else None
    mode = image.mode
    if mode == "1":
        return Raster(np.array(image, dtype=np.uint8)[..., np.newaxis], 1)
    if mode == "P":
        values: list[int] = image.getpalette("RGB") or []
        return Raster(np.array(image)[..., np.newaxis], 8, palette=np.array(values, np.uint8).reshape(-1, 3))
    if mode.startswith("I"):
        return Raster(np.array(image).astype(np.uint16)[..., np.newaxis], 16)
    array = np.array(image if mode in {"L", "LA", "RGB", "RGBA"} else image.convert("RGB"))
    array = array[..., np.newaxis] if array.ndim == 2 else array
    alpha = array[..., -1] if mode in {"LA", "RGBA"} else None
    samples = array if alpha is None else array[..., :-1]
    return Raster(samples, 8, colour=samples.shape[-1] == 3, alpha=alpha, lossy=lossy)
