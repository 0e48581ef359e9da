# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Pictures and masks as cameras and tools write them: drawn once, and written in ways of many kinds."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 256, (6, 9), dtype=np.uint8)
COLOUR = RANDOM.integers(0, 256, (6, 9, 3), dtype=np.uint8)
DEEP = RANDOM.integers(0, 4096, (6, 9), dtype=np.uint16)
SMOOTH = np.repeat(np.linspace(20, 230, 32, dtype=np.uint8)[None], 24, axis=0)
INDICES = RANDOM.integers(0, 3, (6, 9), dtype=np.uint8)
TURNED = Image.Exif()
TURNED[0x0112] = 6

Write = Callable[[Path], object]


def rounded(image: np.ndarray) -> list[Any]:
    """Return planes as values of 8 bits, channels last where there are several."""
    values = np.round(image * 255).astype(int)
    return (values[0] if len(values) == 1 else values.transpose(1, 2, 0)).tolist()


def saved(values: np.ndarray, mode: str | None = None, **options: Any) -> Write:
    image = Image.fromarray(values)
    return lambda path: (image if mode is None else image.convert(mode)).save(path, **options)


def tiff(values: np.ndarray, **options: Any) -> Write:
    return lambda path: tifffile.imwrite(path, values, **options)


def raw(content: bytes) -> Write:
    return lambda path: path.write_bytes(content)


def encoded(values: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, format=kind)
    return buffer.getvalue()


def pages(*values: np.ndarray) -> Write:
    def write(path: Path) -> None:
        with tifffile.TiffWriter(path) as writer:
            for value in values:
                writer.write(value, photometric="minisblack")

    return write


def spoiled(values: np.ndarray, value: float) -> np.ndarray:
    result = values.astype(np.float32) / 255
    result[2, 3] = value
    return result


def few_bits_png(values: np.ndarray, bits: int) -> bytes:
    """Return a grey PNG of ``bits`` bits a sample, written by hand."""
    rows = b""
    for row in values:
        text = "".join(f"{value:0{bits}b}" for value in row)
        text += "0" * (-len(text) % 8)
        rows += b"\0" + int(text, 2).to_bytes(len(text) // 8, "big")

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], bits, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
