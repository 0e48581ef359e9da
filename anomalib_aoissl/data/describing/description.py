# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What a dataset says of itself: class names, devices, lighting channels and colours, from ``dataset.json``."""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DatasetError
from ..indices import IGNORE_INDEX
from ..reading import Colour, read_mask
from .class_names import BACKGROUND, parse_class_names, without_background
from .file_format import OLD_NAMES, validate_suffixes

DESCRIPTION_NAME = "dataset.json"
CLASSES_NAME = "classes.txt"


@dataclass(frozen=True)
class DatasetDescription:
    """Class names, the index that is ignored, each image's device, and how files are coded.

    Attributes:
        classes: Names of the classes, background first.
        ignore_index: Value in the mask files that is ignored.
        groups: Device of each image stem.
        lighting_channels: Suffixes of the files that make one item; empty where one file is one item.
        colours: Class index of each (red, green, blue), where masks are colour-coded.
    """

    classes: tuple[str, ...]
    ignore_index: int = IGNORE_INDEX
    groups: dict[str, str] = field(default_factory=dict)
    lighting_channels: tuple[str, ...] = ()
    colours: dict[Colour, int] | None = None

    def read_mask(self, path: str | Path) -> np.ndarray:
        """Return a mask of the dataset as class indices, uint8 ``[H, W]``; see `reading.read_mask`."""
        return read_mask(path, num_classes=len(self.classes), ignore_index=self.ignore_index, colours=self.colours)


_KEYS = ("classes", "ignore_index", "groups", "lighting_channels", "colours")
_MEANT = {
    "class": "classes",
    "class_names": "classes",
    "color": "colours",
    "colors": "colours",
    "ignore": "ignore_index",
    "illumination": "lighting_channels",
    "labels": "classes",
    "lights": "lighting_channels",
    "names": "classes",
}


def read_description(root: str | Path, classes: Sequence[str] | None = None) -> DatasetDescription:
    """Return the description of the dataset under ``root``.

    The class names come from the argument, else from ``classes`` of dataset.json, else from classes.txt (one name a
    line). All keys of dataset.json are optional: ``classes`` (see `parse_class_names`), ``ignore_index``, ``groups``
    (stem -> device), ``lighting_channels`` (list of suffixes), ``colours`` (class name -> [red, green, blue]).

    Raises:
        DatasetError: If the folder is missing, no class names are found, two are equal, a text file is in an unknown
            encoding, or dataset.json is no JSON object or one of its keys has another form.
    """
    root = Path(root)
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "the folder does not exist"
        msg = f"{root}: {what}. Set root to the folder that holds images/ and masks/."
        raise DatasetError(msg)
    path = root / DESCRIPTION_NAME
    content = _read_json(path) if path.is_file() else {}
    names = _class_names(root, content, classes)
    return DatasetDescription(
        classes=names,
        ignore_index=_ignore_index(content, names, path),
        groups=_groups(content, path),
        lighting_channels=_lighting_channels(content, path),
        colours=_colours(_typed(content, "colours", dict, path, None), names, path),
    )


def read_own_description(root: Path, classes: Sequence[str] | None) -> DatasetDescription:
    """Return the description of a folder of masks in which the classes have the indices that the folder says.

    Given names, with or without the background, count where the folder has none: they may be in another order.

    Raises:
        DatasetError: As `read_description`.
    """
    path = root / DESCRIPTION_NAME
    named = (root / CLASSES_NAME).is_file() or (path.is_file() and _read_json(path).get("classes") is not None)
    if named or classes is None:
        return read_description(root)
    return read_description(root, (BACKGROUND, *without_background(classes)))


def read_text(path: Path) -> str:
    """Return the text of a file in UTF-8, with or without a byte-order mark, or in UTF-16 or UTF-32.

    Raises:
        DatasetError: If it is in another encoding: which one of the many code pages it is cannot be told.
    """
    raw = path.read_bytes()
    try:
        text = raw.decode(json.detect_encoding(raw))
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        msg = f"{path}: line {line} is not UTF-8, but of a code page of Windows or the like. Save the file as UTF-8."
        raise DatasetError(msg) from error
    if "\0" in text:
        msg = f"{path}: is no text file. Save it as UTF-8."
        raise DatasetError(msg)
    return text


def _read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in the file."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        twice = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
        if twice:
            msg = f"{path}: the key {twice[0]!r} is there twice in one object. Remove the one that is not meant."
            raise DatasetError(msg)
        return dict(pairs)

    try:
        content = json.loads(read_text(path), object_pairs_hook=once)
    except DatasetError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        msg = f"{path}: cannot be read as JSON ({error})."
        raise DatasetError(msg) from error
    if not isinstance(content, dict):
        msg = f"{path}: must hold one JSON object, got {type(content).__name__}."
        raise DatasetError(msg)
    for key in content:
        if key not in (*_KEYS, *OLD_NAMES) and (meant := _meant(key)) is not None:
            msg = f'{path}: "{key}" is no key of a dataset. Did you mean "{meant}"?'
            raise DatasetError(msg)
    return content


def _meant(key: str) -> str | None:
    """Return the key that a wrong one is most likely meant to be; None where it is no key at all."""
    close = difflib.get_close_matches(key.lower(), _KEYS, n=1, cutoff=0.8)
    return _MEANT.get(key.lower()) or (close[0] if close else None)


def _typed(content: dict[str, Any], key: str, kind: type, path: Path, default: Any) -> Any:
    """Return a key of the description, or the default where it is absent or null."""
    value = content.get(key)
    if value is None:
        return default
    if not isinstance(value, kind) or isinstance(value, bool):
        msg = f'{path}: "{key}" must be a {kind.__name__}, got {type(value).__name__}.'
        raise DatasetError(msg)
    return value


def _class_names(root: Path, content: dict[str, Any], classes: Sequence[str] | None) -> tuple[str, ...]:
    """Return the class names from the first source that has them."""
    listed = root / CLASSES_NAME
    if classes is not None:
        return parse_class_names(classes, "The argument classes")
    if content.get("classes") is not None:
        return parse_class_names(content["classes"], f'{root / DESCRIPTION_NAME}: "classes"')
    if listed.is_file():
        return parse_class_names([line for line in read_text(listed).splitlines() if line.strip()], listed)
    msg = (
        f"{root}: the class names are not known. Give them in the order of their indices, background first: "
        f'"classes" in {DESCRIPTION_NAME}, a line each in {CLASSES_NAME}, or the argument classes.'
    )
    raise DatasetError(msg)


def _ignore_index(content: dict[str, Any], names: tuple[str, ...], path: Path) -> int:
    """Return the value that masks hold where a pixel is ignored."""
    value = int(_typed(content, "ignore_index", int, path, IGNORE_INDEX))
    if 0 <= value < len(names):
        msg = f'{path}: "ignore_index" is {value}, the index of the class {names[value]!r}. Give another, such as 255.'
        raise DatasetError(msg)
    return value


def _groups(content: dict[str, Any], path: Path) -> dict[str, str]:
    """Return the device of each stem."""
    groups = _typed(content, "groups", dict, path, {})
    for stem, device in groups.items():
        if isinstance(device, bool) or not isinstance(device, str | int) or not str(device).strip():
            msg = f'{path}: "groups" must map names of pictures to names of devices; {stem!r} has {device!r}.'
            raise DatasetError(msg)
    return {stem: str(device) for stem, device in groups.items()}


def _lighting_channels(content: dict[str, Any], path: Path) -> tuple[str, ...]:
    """Return the suffixes of the files of an item; files of versions up to 0.2.0 have them under the old key."""
    given = [key for key in ("lighting_channels", *OLD_NAMES) if key in content]
    if len(given) > 1:
        msg = f'{path}: has "{given[0]}" and "{given[1]}", the old name of the same. Remove "{given[1]}".'
        raise DatasetError(msg)
    try:
        return validate_suffixes(_typed(content, (given or ["lighting_channels"])[0], list, path, []))
    except DatasetError:
        raise
    except ValueError as error:
        msg = f"{path}: {error}"
        raise DatasetError(msg) from error


def _colours(table: dict[str, Any] | None, names: tuple[str, ...], path: Path) -> dict[Colour, int] | None:
    """Return the class index of each colour; the name "ignore" stands for ignored pixels."""
    if table is None:
        return None
    known = {"ignore": IGNORE_INDEX, **{name: index for index, name in enumerate(names)}}
    unknown = sorted(set(table) - set(known))
    wrong = [name for name, colour in table.items() if not _is_colour(colour)]
    if unknown or wrong or not table:
        msg = (
            f'{path}: "colours" must map class names to [red, green, blue], 0 to 255 each; '
            f"not a class: {unknown}, not three numbers: {wrong}. The classes are {list(names)} and ignore."
        )
        raise DatasetError(msg)
    colours: dict[Colour, int] = {}
    owners: dict[Colour, str] = {}
    for name, (red, green, blue) in table.items():
        other = owners.setdefault((red, green, blue), name)
        if other != name:
            msg = f'{path}: in "colours", {other!r} and {name!r} have one colour, {[red, green, blue]}.'
            raise DatasetError(msg)
        colours[red, green, blue] = known[name]
    return colours


def _is_colour(value: object) -> bool:
    """Tell whether a value is a list of three whole numbers from 0 to 255."""
    return (
        isinstance(value, list)
        and len(value) == 3
        and all(isinstance(part, int) and not isinstance(part, bool) and 0 <= part <= 255 for part in value)
    )
