# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What Pillow and tifffile can write is read as it was written, or an error: masks, and pictures against oracles."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from anomalib_aoissl.data.errors import DatasetError
from anomalib_aoissl.data.reading import image_size, read_image, read_mask

PILLOW_MODES = ("1", "L", "LA", "P", "PA", "I", "I;16", "F", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
TIFF_TYPES = ("bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "float16", "float32", "float64")
EXAMPLES = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@st.composite
def masks(draw: Any) -> np.ndarray:
    """Draw class indices ``[H, W]`` of 2 to 255 classes."""
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    classes = draw(st.sampled_from([2, 3, 4, 16, 255]))
    return np.random.default_rng(draw(st.integers(0, 10_000))).integers(0, classes, (height, width), dtype=np.uint8)


def read(path: Path) -> tuple[np.ndarray | None, str]:
    """Return the mask of a file, or None and the error."""
    try:
        return read_mask(path), ""
    except DatasetError as error:
        return None, str(error)


def written_with_pillow(draw: Any, path: Path, mask: np.ndarray, mode: str) -> bool:
    """Write a mask in a mode of Pillow, as a user would get there; tell whether Pillow can."""
    if mode == "P":
        image = Image.fromarray(mask).convert("P")
        image.putpalette(np.random.default_rng(1).integers(0, 256, 768, dtype=np.uint8).tobytes())
    elif mode == "1":
        image = Image.fromarray(mask > 0)
    elif mode in {"I", "F"}:
        image = Image.fromarray(mask.astype(np.int32 if mode == "I" else np.float32))
    elif mode == "I;16":
        image = Image.fromarray(mask.astype(np.uint16))
    else:
        try:
            image = Image.fromarray(mask).convert(mode)
        except ValueError:
            image = Image.fromarray(np.repeat(mask[..., None], 3, axis=-1)).convert(mode)
    options: dict[str, Any] = {}
    if path.suffix == ".tif":
        options["compression"] = draw(st.sampled_from([None, "tiff_lzw", "tiff_deflate", "packbits", "group4", "jpeg"]))
    if path.suffix == ".png" and mode == "P" and draw(st.booleans()):
        options["bits"] = max(1, int(mask.max()).bit_length())
    if draw(st.booleans()):
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = 1
    try:
        image.save(path, **options)
    except (OSError, ValueError, KeyError, RuntimeError, SystemError, TypeError):
        return False
    return True


@EXAMPLES
@given(st.data())
def test_a_mask_that_pillow_writes_is_the_same_or_an_error(data: Any) -> None:
    mask, mode = data.draw(masks()), data.draw(st.sampled_from(PILLOW_MODES))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"m{data.draw(st.sampled_from(['.png', '.bmp', '.tif']))}"
        if not written_with_pillow(data.draw, path, mask, mode):
            return
        expected = (mask > 0).astype(np.uint8) if mode == "1" else mask
        result, error = read(path)
        if result is None:
            assert str(path) in error
            # CCITT's group 4 needs tifffile 2026.3 or later.
            clear = "coded as JPEG" in error or "its compression cannot be read here (<COMPRESSION.CCITT_T6" in error
            assert mode not in {"1", "L", "P", "I;16", "RGB"} or clear, error
        else:
            np.testing.assert_array_equal(result, expected)


@EXAMPLES
@given(st.data())
def test_a_mask_that_tifffile_writes_is_the_same_or_an_error(data: Any) -> None:
    mask, kind = data.draw(masks()), data.draw(st.sampled_from(TIFF_TYPES))
    photometric = data.draw(st.sampled_from(["minisblack", "miniswhite", "rgb", "palette", "separated", "ycbcr"]))
    options: dict[str, Any] = {
        "compression": data.draw(st.sampled_from([None, "lzw", "zlib", "packbits", "zstd", "lzma", "jpeg", "webp"])),
        "bigtiff": data.draw(st.booleans()),
        "byteorder": data.draw(st.sampled_from("<>")),
        "photometric": photometric,
        "predictor": data.draw(st.booleans()),
        "tile": data.draw(st.sampled_from([None, (16, 16)])),
    }
    values = (mask > 0 if kind == "bool" else np.minimum(mask, 100) if kind == "int8" else mask).astype(kind)
    if photometric == "palette" and values.itemsize > 2:
        return
    if photometric == "palette":
        options["colormap"] = np.random.default_rng(1).integers(
            0, 65536, (3, 1 << 8 * values.itemsize), dtype=np.uint16
        )
    if photometric in {"rgb", "ycbcr", "separated"}:
        values = np.repeat(values[..., None], 4 if photometric == "separated" else 3, axis=-1)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "m.tif"
        try:
            tifffile.imwrite(path, values, **options)
        except Exception:  # noqa: BLE001 - whatever tifffile does not write is no case
            return
        result, error = read(path)
        if result is None:
            assert str(path) in error
            plain = photometric in {"minisblack", "palette", "rgb"} and options["compression"] not in {"jpeg", "webp"}
            assert not plain, error
        else:
            flat = values if values.ndim == 2 else values[..., 0]
            np.testing.assert_array_equal(result, flat.astype(np.uint8))


@EXAMPLES
@given(st.data())
def test_a_picture_is_what_pillow_and_opencv_see(data: Any) -> None:
    seed, mode = (
        data.draw(st.integers(0, 10_000)),
        data.draw(st.sampled_from(("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"))),
    )
    height, width = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 20))
    colour = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = data.draw(st.integers(1, 8))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"p{data.draw(st.sampled_from(['.png', '.bmp', '.tif', '.jpg']))}"
        try:
            # uncompressed, Pillow 13 turns some modes of a TIFF wrong
            options = {"compression": "tiff_lzw"} if path.suffix == ".tif" else {}
            Image.fromarray(colour).convert(mode).save(path, exif=exif, **options)
        except (OSError, KeyError):
            return
        with Image.open(path) as image:
            upright = image if path.suffix == ".tif" else ImageOps.exif_transpose(image)  # TIFF: on loading
            expected = np.array(upright.convert("RGB"))
        planes = read_image(path)
        assert image_size(path) == planes.shape[1:] == expected.shape[:2]
        shown = np.round(255 * np.broadcast_to(planes, (3, *planes.shape[1:]))).transpose(1, 2, 0)
        # libtiff and Pillow round the matrix of YCbCr differently
        np.testing.assert_allclose(shown, expected, atol=1 if mode == "YCbCr" else 0)
        if mode in {"1", "L", "RGB"} and path.suffix in {".png", ".bmp"}:
            flags = cv2.IMREAD_COLOR if path.suffix == ".png" else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
            seen = cv2.imread(str(path), flags)[..., ::-1]
            np.testing.assert_array_equal(seen, expected)


@EXAMPLES
@given(
    seed=st.integers(0, 10_000),
    channels=st.sampled_from([1, 3, 4]),
    kind=st.sampled_from(["uint8", "uint16"]),
    suffix=st.sampled_from([".png", ".tif", ".tiff"]),
    depth=st.sampled_from([None, 10, 12, 16]),
)
def test_a_picture_that_opencv_writes_keeps_all_its_bits(
    seed: int, channels: int, kind: str, suffix: str, depth: int | None
) -> None:
    largest = 255 if kind == "uint8" else (1 << (depth or 16)) - 1
    values = np.random.default_rng(seed).integers(0, largest + 1, (7, 5, channels)).astype(kind)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"p{suffix}"
        assert cv2.imwrite(str(path), values)
        if channels == 4 and suffix != ".png":  # OpenCV does not say that the fourth sample is alpha
            with pytest.raises(DatasetError, match="do not say what the fourth is"):
                read_image(path, depth)
            return
        colours = values[..., :3][..., ::-1] if channels > 1 else values
        expected = colours.astype(np.float64).transpose(2, 0, 1) / largest
        np.testing.assert_allclose(read_image(path, depth), expected, rtol=1e-6, atol=1e-7)
