# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Class names as other tools write them: a list, a mapping, objects with ids, or a line each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..errors import DatasetError
from ..indices import IGNORE_INDEX

BACKGROUND = "background"
BACKGROUND_NAMES = {BACKGROUND, "_background_", "__background__"}
_EXAMPLE = '["background", "wire"]'


def parse_class_names(given: object, name: object) -> tuple[str, ...]:
    """Return the class names in the order of their indices, background first.

    Taken are a list of names, a mapping of index to name or of name to index, and a list of objects with "id" and
    "name", each with every index from 0 on once.

    Args:
        given: What the file or the argument holds.
        name: Where it stands, for messages.

    Raises:
        DatasetError: If it is of another form, an index is missing, a name is empty or there twice, or the background
            is not first.
    """
    if isinstance(given, Mapping):
        names = _of_mapping(given, name)
    elif isinstance(given, Sequence) and not isinstance(given, str | bytes):
        names = _of_objects(given, name) if any(isinstance(entry, Mapping) for entry in given) else list(given)
    else:
        msg = f"{name}: the classes must be a list of names such as {_EXAMPLE}, got {given!r}."
        raise DatasetError(msg)
    wrong = [entry for entry in names if not isinstance(entry, str) or not entry.strip() or not entry.isprintable()]
    if wrong:
        msg = f"{name}: each class must be a name such as {_EXAMPLE}, got {wrong[0]!r}."
        raise DatasetError(msg)
    return _checked([entry.strip() for entry in names], name)


def without_background(names: Iterable[str]) -> tuple[str, ...]:
    """Return class names without the background's, whose index formats such as YOLO do not have."""
    return tuple(name for name in names if name.strip().lower() not in BACKGROUND_NAMES)


def _checked(names: list[str], name: object) -> tuple[str, ...]:
    """Return the names after checking their number, that each is there once, and that the background is first."""
    twice = [entry for entry, count in Counter(names).items() if count > 1]
    if twice or len(names) < 2 or len(names) > IGNORE_INDEX:
        what = f"{twice[0]!r} is there twice" if twice else f"got {len(names)}: {names[:5]}"
        msg = f"{name}: there must be 2 to 255 classes (background first), each with a name of its own; {what}."
        raise DatasetError(msg)
    others = [entry.casefold() for entry in names[1:]]
    if names[0].casefold() != BACKGROUND and BACKGROUND in others:
        msg = (
            f"{name}: 'background' is the class {others.index(BACKGROUND) + 1}, and {names[0]!r} the class 0. The "
            "class 0 is the background: put its name first, or call the other class something else."
        )
        raise DatasetError(msg)
    return tuple(names)


def _of_mapping(given: Mapping[Any, Any], name: object) -> list[Any]:
    """Return the names of a mapping of index to name, or of name to index."""
    indices, names = list(given.keys()), list(given.values())
    if all(_index(value) is not None for value in names) and not all(_index(key) is not None for key in indices):
        indices, names = names, indices
    return _in_order([_index(index) for index in indices], names, name)


def _of_objects(given: Sequence[Any], name: object) -> list[Any]:
    """Return the names of objects with an id."""
    if not all(isinstance(entry, Mapping) and "name" in entry for entry in given):
        msg = f'{name}: classes as objects need "id" and "name" each, such as {{"id": 0, "name": "background"}}.'
        raise DatasetError(msg)
    if not any("id" in entry for entry in given):
        return [entry["name"] for entry in given]
    return _in_order([_index(entry.get("id")) for entry in given], [entry["name"] for entry in given], name)


def _in_order(indices: Sequence[int | None], names: Sequence[Any], name: object) -> list[Any]:
    """Return the names sorted by their indices, which must be 0, 1, 2 and so on."""
    if sorted(index for index in indices if index is not None) != list(range(len(names))):
        msg = (
            f"{name}: the classes need the indices 0 (background) to {len(names) - 1}, each once; got "
            f"{dict(zip(names, indices, strict=True))}. Name the classes in a list such as {_EXAMPLE}."
        )
        raise DatasetError(msg)
    return [entry for _, entry in sorted(zip(indices, names, strict=True), key=lambda pair: pair[0] or 0)]


def _index(value: object) -> int | None:
    """Return a whole number, also one that is written as a text; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    text = str(value).strip()
    return int(text) if text.isdecimal() else None
