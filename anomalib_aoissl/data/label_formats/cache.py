# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""An export as a folder of masks that is made once: `SegmentationFolder` reads exports through it."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

from anomalib_aoissl.data.describing.class_names import BACKGROUND
from anomalib_aoissl.data.describing.file_format import FileFormat
from anomalib_aoissl.data.errors import DatasetError
from anomalib_aoissl.data.labels.converting import Choices, convert
from anomalib_aoissl.data.labels.source import Source

from . import find_format, masks, read_labels

logger = logging.getLogger(__name__)

CACHE = Path("datasets")
_VERSION = 4


def as_masks(root: Path, classes: Sequence[str] | None = None, lighting_channels: Sequence[str] = ()) -> Path:
    """Return the folder of masks of an export, made below ``./datasets`` where it is not there yet.

    A folder that holds masks already, or no labels of a known format, is returned as it is. The first of the classes
    is the background, whatever its name.

    Raises:
        DatasetError: If the labels are at fault.
    """
    if not root.is_dir() or any((root / name).is_dir() for name in ("masks", "train/masks")):
        return root
    classes = None if classes is None else (BACKGROUND, *classes[1:])
    files = [path for path in root.iterdir() if not path.name.startswith(".")]
    source = Source(root, file_format=FileFormat(tuple(lighting_channels)), classes=classes) if files else None
    if source is None or find_format(source) is None:
        return root
    target = CACHE / f"{root.resolve().name}-{_fingerprint(source, classes, lighting_channels)}"
    if target.is_dir():
        return target
    labels = read_labels(source)
    try:
        report = convert(labels, source, target, masks.FORMAT, Choices(classes=classes))
    except (DatasetError, OSError):
        if target.is_dir():  # another process was faster
            return target
        raise
    logger.warning("%s is %s: %d pictures with labels, written to %s.", root, labels.format, report.labelled, target)
    for note in report.notes:
        logger.warning("%s.", note)
    return target


def _fingerprint(source: Source, *arguments: object) -> str:
    """Return digits that change with the export's files and the arguments."""
    digest = hashlib.sha256(repr((_VERSION, *arguments)).encode())
    for path in source.files:
        status = path.stat()
        digest.update(f"{path.relative_to(source.root)}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return digest.hexdigest()[:12]
