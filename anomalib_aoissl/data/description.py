# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What a dataset says of itself: class names, devices, illuminations and colours, from ``dataset.json``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import DatasetError
from .indices import IGNORE_INDEX
from .reading import Colour

DESCRIPTION_NAME = "dataset.json"
CLASSES_NAME = "classes.txt"


@dataclass(frozen=True)
class DatasetDescription:
    """Class names, the index that is ignored, each image's device, and how files are coded.

    Attributes:
        classes: Names of the classes, background first.
        ignore_index: Value in the mask files that is ignored.
        groups: Device of each image stem.
        illuminations: Suffixes of the files that make one item; empty where one file is one item.
        colours: Class index of each (red, green, blue), where masks are colour-coded.
    """

    classes: tuple[str, ...]
    ignore_index: int = IGNORE_INDEX
    groups: dict[str, str] = field(default_factory=dict)
    illuminations: tuple[str, ...] = ()
    colours: dict[Colour, int] | None = None


def read_description(root: str | Path, classes: Sequence[str] | None = None) -> DatasetDescription:
    """Return the description of the dataset under ``root``.

    The class names come from the argument, else from ``classes`` of dataset.json, else from classes.txt (one name a
    line). All keys of dataset.json are optional: ``classes``, ``ignore_index``, ``groups`` (stem -> device),
    ``illuminations`` (list of suffixes), ``colours`` (class name -> [red, green, blue]).

    Raises:
        DatasetError: If the folder is missing, no class names are found, two are equal, or dataset.json is no JSON
            object or one of its keys has another form.
    """
    root = Path(root)
    if not root.is_dir():
        msg = f"{root}: the folder does not exist. Set root to the folder that holds images/ and masks/."
        raise DatasetError(msg)
    path = root / DESCRIPTION_NAME
    content = _read_json(path) if path.is_file() else {}
    names = _class_names(root, content, classes)
    return DatasetDescription(
        classes=names,
        ignore_index=int(_typed(content, "ignore_index", int, path, IGNORE_INDEX)),
        groups={str(k): str(v) for k, v in _typed(content, "groups", dict, path, {}).items()},
        illuminations=tuple(_typed(content, "illuminations", list, path, [])),
        colours=_colours(_typed(content, "colours", dict, path, None), names, path),
    )


def _read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in the file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        msg = f"{path}: cannot be read as JSON ({error})."
        raise DatasetError(msg) from error
    if not isinstance(content, dict):
        msg = f"{path}: must hold one JSON object, got {type(content).__name__}."
        raise DatasetError(msg)
    return content


def _typed(content: dict[str, Any], key: str, kind: type, path: Path, default: Any) -> Any:
    """Return a key of the description, or the default where it is absent."""
    value = content.get(key, default)
    if value is not default and not isinstance(value, kind):
        msg = f'{path}: "{key}" must be a {kind.__name__}, got {type(value).__name__}.'
        raise DatasetError(msg)
    return value


def _class_names(root: Path, content: dict[str, Any], classes: Sequence[str] | None) -> tuple[str, ...]:
    """Return the class names from the first source that has them."""
    listed = root / CLASSES_NAME
    if classes:
        names = list(classes)
    elif content.get("classes"):
        names = [str(name) for name in content["classes"]]
    elif listed.is_file():
        names = [line.strip() for line in listed.read_text(encoding="utf-8").splitlines() if line.strip()]
    else:
        msg = (
            f"{root}: the class names are not known. Give them in the order of their indices, background first: "
            f'"classes" in {DESCRIPTION_NAME}, a line each in {CLASSES_NAME}, or the argument classes.'
        )
        raise DatasetError(msg)
    if len(set(names)) != len(names) or len(names) < 2 or len(names) > IGNORE_INDEX:
        msg = f"{root}: there must be 2 to 255 classes (background first), each with a name of its own; got {names}."
        raise DatasetError(msg)
    return tuple(names)


def _colours(table: dict[str, Any] | None, names: tuple[str, ...], path: Path) -> dict[Colour, int] | None:
    """Return the class index of each colour; the name "ignore" stands for ignored pixels."""
    if table is None:
        return None
    known = {**{name: index for index, name in enumerate(names)}, "ignore": IGNORE_INDEX}
    unknown = sorted(set(table) - set(known))
    wrong = [name for name, colour in table.items() if not (isinstance(colour, list) and len(colour) == 3)]
    if unknown or wrong:
        msg = (
            f'{path}: "colours" must map class names to [red, green, blue]; '
            f"not a class: {unknown}, not three numbers: {wrong}. The classes are {list(names)} and ignore."
        )
        raise DatasetError(msg)
    return {(int(c[0]), int(c[1]), int(c[2])): known[name] for name, c in table.items()}
