# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0
"""The files of one drawn unit: bright field, dark field and mask, each written whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from anomalib_aoissl.data.describing.class_colours import write_class_index_png
from anomalib_aoissl.data.files import whole_file

from ..devices import CLASS_NAMES, DeviceType
from ..rendering import draw

LIGHTING_CHANNELS: tuple[str, str] = ("_ch0", "_ch1")


@dataclass(frozen=True)
class DrawingJob:
    """One type of device and the units of it that are to be written."""

    device: DeviceType
    units: tuple[int, ...]
    seed: int
    lot: int
    size: tuple[int, int]
    difficulty: float


def write_job(root: Path, job: DrawingJob) -> Iterator[str]:
    """Draw the units of a job and yield the stem of each as soon as its files are written."""
    for unit in job.units:
        drawing = draw(job.device, seed=job.seed, unit=unit, lot=job.lot, size=job.size, difficulty=job.difficulty)
        stem = stem_of(job.device, job.lot, unit)
        bright, dark, mask = _paths(root, stem)
        write_bytes(bright, _gray_png(drawing.bright_field))
        write_bytes(dark, _gray_png(drawing.dark_field))
        write_class_index_png(mask, drawing.mask, len(CLASS_NAMES))
        yield stem


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_bytes(content)


def stem_of(device: DeviceType, lot: int, unit: int) -> str:
    """Return the name of a unit's files without channel and suffix."""
    return f"{device.name}_{lot:02d}_{unit:03d}"


def _paths(root: Path, stem: str) -> tuple[Path, Path, Path]:
    """Return the paths of bright field, dark field and mask."""
    images = root / "images"
    bright, dark = (images / f"{stem}{channel}.png" for channel in LIGHTING_CHANNELS)
    return bright, dark, root / "masks" / f"{stem}.png"


def is_complete(root: Path, stem: str) -> bool:
    """Return whether all files of a unit are there."""
    return all(path.exists() for path in _paths(root, stem))


def _gray_png(image: NDArray[np.uint8]) -> bytes:
    """Return an image as PNG; light compression, as noise does not compress anyway."""
    return bytes(cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1])
