# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Folders to records: which files make one item, where its mask is, and which device it shows."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import DatasetError
from .reading import IMAGE_SUFFIXES, MASK_SUFFIXES

UNKNOWN_DEVICE = "unknown"


@dataclass(frozen=True)
class Record:
    """One item on disk.

    Attributes:
        stem: Path below the image folder without the file's suffix and without the illumination's.
        image_paths: One file for each light, in the order of the illuminations.
        mask_path: The mask, or None where the item is not labelled.
        device: Name of the product on the image.
    """

    stem: str
    image_paths: tuple[Path, ...]
    mask_path: Path | None
    device: str


def list_records(
    image_dir: Path,
    mask_dir: Path | None,
    *,
    illuminations: Sequence[str] = (),
    groups: Mapping[str, str] | None = None,
    device_pattern: str | None = None,
) -> list[Record]:
    """Return the records below ``image_dir``, sorted by stem.

    A device comes from, in this order: ``device_pattern`` searched in the stem (its first group, else the whole
    match), ``groups`` by the whole stem or its last part, the sub-folder, else "unknown".

    Raises:
        DatasetError: If the folder is missing or holds no image, two images have one stem, an illumination is
            missing, or the pattern does not match a stem.
    """
    stems = _stems(image_dir, tuple(illuminations))
    masks = _masks(mask_dir)
    pattern = _compiled(device_pattern)
    return [
        Record(stem, paths, masks.get(stem), _device(stem, paths[0], groups or {}, pattern))
        for stem, paths in sorted(stems.items())
    ]


def image_files(folder: Path) -> list[Path]:
    """Return the image files below the folder, sorted.

    Raises:
        DatasetError: If the folder is missing or holds no image.
    """
    if not folder.is_dir():
        msg = f"{folder}: the image folder does not exist."
        raise DatasetError(msg)
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))
    if not files:
        msg = f"{folder}: holds no image ({', '.join(IMAGE_SUFFIXES)})."
        raise DatasetError(msg)
    return files


def _stems(folder: Path, illuminations: tuple[str, ...]) -> dict[str, tuple[Path, ...]]:
    """Return the files of each stem, one for each illumination."""
    found: dict[str, dict[str, Path]] = defaultdict(dict)
    for path in image_files(folder):
        name = path.relative_to(folder).with_suffix("").as_posix()
        light = next((suffix for suffix in illuminations if name.endswith(suffix)), None)
        if illuminations and light is None:
            continue  # another picture of the device, for instance a third light that is not asked for
        stem, key = (name.removesuffix(light), light) if light is not None else (name, "")
        if key in found[stem]:
            msg = f"{path}: has the same name as {found[stem][key].name}; an item's name must be unique."
            raise DatasetError(msg)
        found[stem][key] = path
    if not found:
        msg = f"{folder}: no file name ends with one of the illuminations {list(illuminations)}."
        raise DatasetError(msg)
    for stem, files in found.items():
        missing = [light for light in illuminations if light not in files]
        if missing:
            present = next(iter(files.values()))
            msg = f"{present}: the file of the illumination {missing[0]!r} is missing beside it ({stem}{missing[0]}.*)."
            raise DatasetError(msg)
    return {stem: tuple(files[light] for light in illuminations or ("",)) for stem, files in found.items()}


def _masks(folder: Path | None) -> dict[str, Path]:
    """Return the mask of each stem."""
    if folder is None or not folder.is_dir():
        return {}
    files = sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    lossless = [p for p in files if p.suffix.lower() in MASK_SUFFIXES]
    if files and not lossless:
        msg = f"{folder}: holds no lossless mask ({', '.join(MASK_SUFFIXES)}), only {files[0].name} and the like."
        raise DatasetError(msg)
    return {p.relative_to(folder).with_suffix("").as_posix(): p for p in lossless}


def _compiled(pattern: str | None) -> re.Pattern[str] | None:
    """Return the compiled pattern.

    Raises:
        DatasetError: If it is no regular expression.
    """
    try:
        return None if pattern is None else re.compile(pattern)
    except re.error as error:
        msg = f"device_pattern={pattern!r} is no regular expression: {error}."
        raise DatasetError(msg) from error


def _device(stem: str, path: Path, groups: Mapping[str, str], pattern: re.Pattern[str] | None) -> str:
    """Return the device of one item."""
    if pattern is not None:
        match = pattern.search(stem)
        if match is None:
            msg = f"{path}: device_pattern={pattern.pattern!r} does not match the name {stem!r}."
            raise DatasetError(msg)
        return match.group(1) if pattern.groups else match.group(0)
    last = stem.rsplit("/", 1)[-1]
    if stem in groups or last in groups:
        return groups.get(stem, groups.get(last, UNKNOWN_DEVICE))
    return stem.split("/", 1)[0] if "/" in stem else UNKNOWN_DEVICE
