# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""JSON and XML of other tools: a broken file or a missing key is an error with the file, and the line if known."""

from __future__ import annotations

import base64
import binascii
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree as ET

import numpy as np
from PIL import Image

from anomalib_aoissl.data.describing.description import read_text
from anomalib_aoissl.data.errors import DatasetError

from .shapes.geometry import decoded_counts, of_runs


def read_json(path: Path) -> Any:
    """Return what a JSON file holds.

    Raises:
        DatasetError: If it is no JSON; the message has file, line and column.
    """
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        what = f"line {error.lineno}, column {error.colno}: {error.msg}"
        msg = f"{path}: is broken JSON ({what}). Export it again, or mend the line."
        raise DatasetError(msg) from error
    except RecursionError as error:
        msg = f"{path}: is broken JSON (nested too deep). Export it again."
        raise DatasetError(msg) from error


def read_xml(path: Path) -> ET.Element:
    """Return the root element of an XML file.

    Raises:
        DatasetError: If it is no XML, with file, line and column, or declares entities, which no export does.
    """
    text = read_text(path)
    if "<!ENTITY" in text:
        msg = f"{path}: declares XML entities, which are not read. Export it again."
        raise DatasetError(msg)
    try:
        return ET.fromstring(text)  # noqa: S314 - entities are ruled out above
    except ET.ParseError as error:
        line, column = error.position
        msg = f"{path}: is broken XML (line {line}, column {column + 1}: {error}). Export it again, or mend the line."
        raise DatasetError(msg) from error


def get(entry: object, key: str, kind: type | tuple[type, ...], path: Path, where: str) -> Any:
    """Return a value of an object of the file.

    Raises:
        DatasetError: If the object is none, or the key is missing or of another type.
    """
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        given = "is missing" if value is None else f"is {value!r}"[:80]
        msg = f'{path}: {where}: "{key}" {given}. Export the labels again, or mend the file.'
        raise DatasetError(msg)
    return value


def class_list(names: Sequence[object], path: Path) -> tuple[str, ...]:
    """Return the classes of a file.

    Raises:
        DatasetError: If one has no name, or two have one.
    """
    for index, name in enumerate(names):
        if not isinstance(name, str) or not name.strip():
            msg = f"{path}: class {index + 1} of {len(names)} has no name ({name!r}). Name it in the tool."
            raise DatasetError(msg)
    plain = [str(name).strip() for name in names]
    twice = next((name for index, name in enumerate(plain) if name in plain[:index]), None)
    if twice is not None:
        msg = f"{path}: two classes are called {twice!r}. Rename one of them in the tool, and export again."
        raise DatasetError(msg)
    return tuple(plain)


def points(values: object, path: Path, where: str) -> np.ndarray:
    """Return a ring ``[N, 2]`` float64 of a flat list x, y, x, y or a list of pairs.

    Raises:
        DatasetError: If it is no such list, or a number is not finite.
    """
    try:
        ring = np.asarray(values, dtype=np.float64).reshape(-1, 2)
    except (TypeError, ValueError) as error:
        msg = f"{path}: {where}: its points are no list of x and y ({str(values)[:60]}). Draw it again."
        raise DatasetError(msg) from error
    if not np.isfinite(ring).all():
        msg = f"{path}: {where}: one of its points is not finite. Draw it again."
        raise DatasetError(msg)
    return ring


def run_mask(runs: dict[str, Any], picture: tuple[int, int] | None, path: Path, where: str) -> Callable[[], np.ndarray]:
    """Return what decodes the run lengths of a whole picture, compressed or not, down the columns: ``[h, w]`` bool.

    Args:
        runs: ``counts`` and ``size`` (h, w).
        picture: (h, w) of the picture where the file says it.
        path: The file, for messages.
        where: Which entry of it.

    Raises:
        DatasetError: If a key is missing, or the size is not that of the picture; later, if they cannot be decoded.
    """
    counts = get(runs, "counts", (list, str), path, where)
    size = get(runs, "size", list, path, where)
    if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        msg = f'{path}: {where}: "size" must be a height and a width, got {size}. Export the labels again.'
        raise DatasetError(msg)
    if picture is not None and tuple(size) != picture:
        msg = (
            f"{path}: {where}: its run lengths are of {size[0]}x{size[1]} px (height x width), the picture has "
            f"{picture[0]}x{picture[1]}. Export the labels again."
        )
        raise DatasetError(msg)

    def mask() -> np.ndarray:
        try:
            lengths = decoded_counts(counts) if isinstance(counts, str) else counts
            return of_runs(lengths, (size[0], size[1]), columns=True)
        except (TypeError, ValueError) as error:
            msg = f"{path}: {where}: {error}. Export the labels again."
            raise DatasetError(msg) from error

    return mask


def png_mask(text: str, band: Literal["A", "L"], path: Path, where: str) -> Callable[[], np.ndarray]:
    """Return what decodes a mask ``[h, w]`` bool, a PNG in base64, true where its opacity or its grey is not 0.

    Raises:
        DatasetError: Later, if it is none.
    """

    def mask() -> np.ndarray:
        try:
            with Image.open(io.BytesIO(base64.b64decode(text, validate=True)), formats=["PNG"]) as picture:
                return np.array(picture.convert("RGBA" if band == "A" else "L").getchannel(band)) > 0
        except (binascii.Error, OSError, ValueError) as error:
            msg = f"{path}: {where}: its mask is no PNG in base64 ({error}). Draw it again."
            raise DatasetError(msg) from error

    return mask


def counted(counts: Mapping[str, int]) -> str:
    """Return what was counted as a text such as "3 line, 2 point"."""
    return ", ".join(f"{count} {kind}" for kind, count in counts.items())


def floats(texts: Sequence[str | None], path: Path, where: str) -> list[float]:
    """Return the numbers of attributes.

    Raises:
        DatasetError: If one is missing or no number.
    """
    try:
        return [float(str(text)) for text in texts]
    except ValueError as error:
        msg = f"{path}: {where}: {error}. Export the labels again, or mend the file."
        raise DatasetError(msg) from error
