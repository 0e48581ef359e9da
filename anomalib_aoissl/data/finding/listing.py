# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Folders to records: which files make one item, where its mask is, and which device it shows."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import DatasetError
from ..reading import IMAGE_SUFFIXES, MASK_SUFFIXES
from .folders import files_below, image_files, say

UNKNOWN_DEVICE = "unknown"


@dataclass(frozen=True)
class Record:
    """One item on disk.

    Attributes:
        stem: Path below the image folder without the file's suffix and without the lighting channel's.
        image_paths: One file for each lighting channel, in the order of their suffixes.
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
    lighting_channels: Sequence[str] = (),
    groups: Mapping[str, str] | None = None,
    device_pattern: str | None = None,
    left_out: list[str] | None = None,
) -> list[Record]:
    """Return the records below ``image_dir``, sorted by stem.

    A device comes from, in this order: ``device_pattern`` searched in the stem (its first group, else the whole
    match), ``groups`` by the whole stem, its last part or a file's name, the sub-folder, else "unknown". What is
    unusual, such as a mask without a picture, is said in one line each. An item of which a lighting channel is missing
    is left out where ``left_out`` is given, and what is wrong with it is added there.

    Raises:
        DatasetError: If the folder is missing or holds no image, two images or two masks have one stem, a
            lighting channel is missing without ``left_out``, or the pattern does not match a stem.
    """
    stems = _stems(image_dir, tuple(lighting_channels), left_out)
    masks = _spelt_as(stems, _masks(mask_dir))
    say(f"masks in {mask_dir} have no picture of their name in {image_dir}", sorted(set(masks) - set(stems)))
    pattern = _compiled(device_pattern)
    plain = groups_by_stem(groups or {})
    return [
        Record(stem, paths, masks.get(stem), _device(stem, paths, plain, pattern))
        for stem, paths in sorted(stems.items())
    ]


def check_groups(groups: Mapping[str, str], records: Iterable[Record], name: object) -> None:
    """Validate that the groups of a description name its pictures; those that name nobody are said in one line.

    Args:
        groups: Device of each stem or file name.
        records: All items of the dataset.
        name: File that the groups stand in.

    Raises:
        DatasetError: If they name none of the pictures.
    """
    listed = list(records)
    named = {key for record in listed for key in _keys(record.stem, record.image_paths)}
    unused = [key for key in groups if _without_suffix(key) not in named]
    if groups and len(unused) == len(groups):
        msg = (
            f'{name}: "groups" names none of the pictures. It names, for example, {unused[:3]}; the pictures are, for '
            f"example, {[record.stem for record in listed[:3]]}. Write the names of the pictures."
        )
        raise DatasetError(msg)
    say(f'names in "groups" of {name} are those of no picture', unused)
    if groups:
        plain = {_without_suffix(key) for key in groups}
        without = [record.stem for record in listed if not plain & set(_keys(record.stem, record.image_paths))]
        say(f'pictures are in none of the "groups" of {name}; their device is their sub-folder or unknown', without)


def _stems(folder: Path, lighting_channels: tuple[str, ...], left_out: list[str] | None) -> dict[str, tuple[Path, ...]]:
    """Return the files of each stem, one for each lighting channel; what others lack is added to ``left_out``."""
    found: dict[str, dict[str, Path]] = defaultdict(dict)
    others = []
    for path in image_files(folder):
        name = path.relative_to(folder).with_suffix("").as_posix()
        channel = next((suffix for suffix in lighting_channels if name.endswith(suffix)), None)
        if lighting_channels and channel is None:
            others.append(path.name)  # for instance a third lighting channel that is not asked for
            continue
        stem, key = (name.removesuffix(channel), channel) if channel is not None else (name, "")
        if key in found[stem]:
            msg = f"{path}: has the same name as {found[stem][key].name}; an item's name must be unique."
            raise DatasetError(msg)
        found[stem][key] = path
    if not found:
        msg = f"{folder}: no file name ends with one of the lighting channels {list(lighting_channels)}."
        raise DatasetError(msg)
    say(f"pictures in {folder} are of none of the lighting channels {list(lighting_channels)}", others)
    for stem, files in list(found.items()):
        missing = [channel for channel in lighting_channels if channel not in files]
        if missing:
            present = next(iter(files.values()))
            wanted = f"{stem}{missing[0]}.*"
            msg = f"{present}: the file of the lighting channel {missing[0]!r} is missing beside it ({wanted})."
            if left_out is None:
                raise DatasetError(msg)
            left_out.append(msg)
            del found[stem]
    return {stem: tuple(files[channel] for channel in lighting_channels or ("",)) for stem, files in found.items()}


def _masks(folder: Path | None) -> dict[str, Path]:
    """Return the mask of each stem.

    Raises:
        DatasetError: If the folder holds files but no lossless one, or two masks of one name.
    """
    if folder is None or not folder.is_dir():
        return {}
    files = files_below(folder)
    lossless = [p for p in files if p.suffix.lower() in MASK_SUFFIXES]
    if files and not lossless:
        msg = f"{folder}: holds no lossless mask ({', '.join(MASK_SUFFIXES)}), only {files[0].name} and the like."
        raise DatasetError(msg)
    say(f"files in {folder} are left out, being no lossless masks", [p.name for p in files if p not in set(lossless)])
    masks: dict[str, Path] = {}
    for path in lossless:
        other = masks.setdefault(path.relative_to(folder).with_suffix("").as_posix(), path)
        if other != path:
            msg = f"{path}: is a second mask beside {other.name} for one picture. Remove the one that is not meant."
            raise DatasetError(msg)
    return masks


def _spelt_as(stems: Iterable[str], masks: Mapping[str, Path]) -> dict[str, Path]:
    """Return the masks by the stems of their pictures, where these are spelt with other code points.

    A letter such as an umlaut is one code point or two, as the system has it that wrote the name; both look the same.
    """
    spelt = {unicodedata.normalize("NFC", stem): stem for stem in stems if stem not in masks}
    return {spelt.get(unicodedata.normalize("NFC", name), name): path for name, path in masks.items()}


def _compiled(pattern: str | None) -> re.Pattern[str] | None:
    """Return the compiled pattern.

    Raises:
        DatasetError: If it is no regular expression.
    """
    try:
        return None if pattern is None else re.compile(pattern)
    except (re.error, TypeError) as error:
        msg = f"device_pattern={pattern!r} is no regular expression: {error}."
        raise DatasetError(msg) from error


def _keys(stem: str, paths: Sequence[Path]) -> list[str]:
    """Return the names by which a group may call an item: its stem, the last part of it, or one of its files."""
    return [stem, stem.rsplit("/", 1)[-1], *(path.stem for path in paths)]


def _without_suffix(name: str) -> str:
    """Return the name of a file without a picture's suffix."""
    name = name.replace("\\", "/")
    return next((name[: -len(suffix)] for suffix in IMAGE_SUFFIXES if name.lower().endswith(suffix)), name)


def groups_by_stem(groups: Mapping[str, str]) -> dict[str, str]:
    """Return the groups of a description without the suffixes of their files' names."""
    return {_without_suffix(key): device for key, device in groups.items()}


def device_of(stem: str, paths: Sequence[Path], groups: Mapping[str, str]) -> str:
    """Return the device of an item: that of its group, see `groups_by_stem`, else its sub-folder, else "unknown"."""
    folder = stem.split("/", 1)[0] if "/" in stem else UNKNOWN_DEVICE
    return group_of(stem, paths, groups) or folder


def group_of(stem: str, paths: Sequence[Path], groups: Mapping[str, str]) -> str | None:
    """Return the device that a group of `groups_by_stem` gives an item; None where no group names it."""
    return next((groups[key] for key in _keys(stem, paths) if key in groups), None)


def _device(stem: str, paths: Sequence[Path], groups: Mapping[str, str], pattern: re.Pattern[str] | None) -> str:
    """Return the device of one item."""
    if pattern is not None:
        match = pattern.search(stem)
        if match is None:
            msg = f"{paths[0]}: device_pattern={pattern.pattern!r} does not match the name {stem!r}."
            raise DatasetError(msg)
        return (match.group(1) or UNKNOWN_DEVICE) if pattern.groups else match.group(0)
    return device_of(stem, paths, groups)
