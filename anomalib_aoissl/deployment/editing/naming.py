# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What an edit may be told: names of devices, images and classes, which the model then carries for good."""

from __future__ import annotations

from collections.abc import Sequence

from anomalib_aoissl.data.describing.class_names import parse_class_names


def check_name(argument: str, name: object) -> None:
    """Validate the name of a device or an image: by it, the bank's entries are found and removed again.

    Raises:
        ValueError: If it is no text, or empty, or has characters that no table can show.
    """
    if not isinstance(name, str) or not name.strip() or not name.isprintable():
        msg = f"{argument}={name!r} must be a name such as 'board_7': text on one line, and not empty."
        raise ValueError(msg)


def names_of_mask(given: Sequence[str] | None, known: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of a mask's indices: those that are given, else the model's.

    Raises:
        ValueError: If they are no list of names, one is there twice, or the first is not the model's background:
            index 0 would be learnt as a class then, on most pixels of the image.
    """
    if given is None:
        return known
    names = parse_class_names(given, "class_names")
    if names[0] != known[0]:
        msg = (
            f"class_names={list(names)} must begin with {known[0]!r}, the model's background: index 0 of the mask is "
            "the background."
        )
        raise ValueError(msg)
    return names
