# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Label Studio: the JSON export with brushes, bitmasks, and polygons, boxes, ellipses in percent of the picture [0].

Its PNG export of brushes does not say which picture a mask is of, so the JSON is needed.

[0]: https://labelstud.io/guide/export
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from anomalib_aoissl.data.errors import DatasetError
from anomalib_aoissl.data.labels.content import LabelledPicture, LabelSet, Shape
from anomalib_aoissl.data.labels.shapes.geometry import box, ellipse, turned
from anomalib_aoissl.data.labels.source import LabelFormat, Source
from anomalib_aoissl.data.labels.texts import counted, get, png_mask, points

_KINDS = {
    "brush": "brushlabels",
    "brushlabels": "brushlabels",
    "bitmask": "bitmasklabels",
    "bitmasklabels": "bitmasklabels",
    "polygonlabels": "polygonlabels",
    "rectanglelabels": "rectanglelabels",
    "ellipselabels": "ellipselabels",
}
_WITHOUT_AREA = {"keypoint", "keypointlabels", "vector", "vectorlabels"}
_WITHOUT_LABEL = {"ellipse", "polygon", "rectangle"}  # drawn with no label chosen
_NO_SHAPES = {"choices", "rating", "textarea", "relation", "taxonomy"}


def _is_task(task: object) -> bool:
    return isinstance(task, dict) and isinstance(task.get("annotations"), list) and isinstance(task.get("data"), dict)


def _is_label_studio(content: object) -> bool:
    return isinstance(content, list) and bool(content) and _is_task(content[0])


def _files(source: Source) -> list[Path]:
    found = source.passing_json_files(_is_label_studio)
    if not found and any("-annotation-" in path.name and "-tag-" in path.name for path in source.named(".png")):
        msg = f"{source.path}: is Label Studio's PNG export, which does not say the pictures' names. Export as JSON."
        raise DatasetError(msg)
    if not found and any(_is_minimal(source.json(path)) for path in source.named(".json")[:3]):
        msg = f"{source.path}: is Label Studio's JSON_MIN, which does not hold all brushes. Export as JSON."
        raise DatasetError(msg)
    return found


def _is_minimal(content: object) -> bool:
    return isinstance(content, list) and bool(content) and isinstance(content[0], dict) and "annotator" in content[0]


def _read(files: Sequence[Path], source: Source) -> LabelSet:
    """Return the labels; of each task the last annotation that was not cancelled. Classes are in order of names."""
    images, notes = [], []
    for path in files:
        others: Counter[str] = Counter()
        several = 0
        for number, task in enumerate(source.json(path), start=1):
            if not _is_task(task):
                msg = f'{path}: task {number} has no "data" and "annotations". Export the labels again.'
                raise DatasetError(msg)
            done = [
                entry for entry in task["annotations"] if isinstance(entry, dict) and not entry.get("was_cancelled")
            ]
            several += len(done) > 1
            images.append(_image(task, done[-1:], path, f"task {task.get('id', number)}", others))
        if several:
            notes.append(f"{path}: {several} tasks have several annotations; the last of each counts")
        notes += [f"{path}: {counted(kinds)} results {what} and are left out" for what, kinds in _by_reason(others)]
    classes = sorted({shape.label for image in images for shape in image.shapes})
    return LabelSet("Label Studio", tuple(classes), images, notes)


def _by_reason(others: Counter[str]) -> list[tuple[str, dict[str, int]]]:
    """Return why results are left out, and how many of each kind."""
    left_out: dict[str, dict[str, int]] = {}
    for kind, count in others.items():
        left_out.setdefault(_reason(kind), {})[kind] = count
    return list(left_out.items())


def _reason(kind: str) -> str:
    """Return why results of a kind are left out."""
    if kind in _WITHOUT_LABEL:
        return "have no label of their own"
    if kind in _WITHOUT_AREA:
        return "have no area"
    return "are of a kind that is not read (draw polygons or brushes)"


def _image(
    task: dict[str, Any], done: Sequence[dict[str, Any]], path: Path, where: str, others: Counter[str]
) -> LabelledPicture:
    """Return the labels of one task, of its one annotation or none."""
    shapes: list[Shape] = []
    place = None
    for number, result in enumerate(get(done[0], "result", list, path, where) if done else [], start=1):
        here = f"{where}, result {number}"
        kind = str(result.get("type")) if isinstance(result, dict) else ""
        if kind not in _KINDS:
            if kind not in _NO_SHAPES:
                others[kind] += 1
            continue
        height, width = (int(get(result, key, int, path, here)) for key in ("original_height", "original_width"))
        mine = (result.get("to_name"), result.get("item_index") or 0, (height, width))
        if place not in {None, mine}:
            msg = f"{path}: {here}: is of another picture, or size of it, than those before. Give each picture a task."
            raise DatasetError(msg)
        place = mine
        shapes.append(_shape(get(result, "value", dict, path, here), kind, (height, width), path, here))
    return LabelledPicture(_name(task, path, where), path, None if place is None else place[-1], shapes)


def _name(task: dict[str, Any], path: Path, where: str) -> str:
    """Return the name of a task's picture: of an upload, of a local file, or of an address."""
    values = [value for key, value in sorted(task["data"].items(), key=lambda item: item[0] != "image")]
    address = next((value for value in values if isinstance(value, str)), None) or task.get("file_upload")
    if not isinstance(address, str):
        msg = f"{path}: {where} names no picture. Export the labels again."
        raise DatasetError(msg)
    parts = urlsplit(address)
    local = parse_qs(parts.query).get("d")
    return local[0] if local else unquote(parts.path)


def _shape(value: dict[str, Any], kind: str, size: tuple[int, int], path: Path, where: str) -> Shape:
    """Return one result."""
    labels = value.get(_KINDS[kind]) or value.get("labels")
    if not isinstance(labels, list) or not labels or not str(labels[0]).strip():
        msg = f"{path}: {where} has no label. Name it in the tool."
        raise DatasetError(msg)
    label, percent = str(labels[0]).strip(), np.array([size[1], size[0]]) / 100  # x, y

    def number(key: str) -> float:
        return float(get(value, key, (int, float), path, where))

    if kind.startswith("brush"):
        return Shape(label, mask=_brush(get(value, "rle", list, path, where), size, path, where))
    if kind.startswith("bitmask"):
        return Shape(label, mask=_bitmask(get(value, "imageDataURL", str, path, where), size, path, where))
    if kind == "polygonlabels":
        return Shape(label, (points(get(value, "points", list, path, where), path, where) * percent,))
    x, y = np.array([number("x"), number("y")]) * percent
    turn = float(value.get("rotation") or 0)
    if kind == "ellipselabels":
        return Shape(label, (ellipse(x, y, number("radiusX") * percent[0], number("radiusY") * percent[1], turn),))
    width, height = np.array([number("width"), number("height")]) * percent
    return Shape(label, (turned(box(x, y, x + width, y + height), turn, (x, y)),))  # about its corner


def _brush(packed: list[Any], size: tuple[int, int], path: Path, where: str) -> Any:
    """Return what decodes a brush."""

    def mask() -> np.ndarray:
        try:
            values = unpacked(packed)
            return values.reshape(*size, 4)[..., 3] > 0
        except (IndexError, OverflowError, TypeError, ValueError) as error:
            msg = f"{path}: {where}: its brush cannot be decoded ({error}). Export the labels again."
            raise DatasetError(msg) from error

    return mask


def _bitmask(url: str, size: tuple[int, int], path: Path, where: str) -> Callable[[], np.ndarray]:
    """Return what decodes a bitmask, a PNG of the picture's size that is opaque where it is drawn."""
    decode = png_mask(url.rpartition(",")[2], "A", path, where)

    def mask() -> np.ndarray:
        pixels = decode()
        if pixels.shape != size:
            msg = (
                f"{path}: {where}: its bitmask has {pixels.shape[0]}x{pixels.shape[1]} px (height x width), the "
                f"picture has {size[0]}x{size[1]}. Draw it again."
            )
            raise DatasetError(msg)
        return pixels

    return mask


def unpacked(packed: Sequence[int]) -> np.ndarray:
    """Return the values, uint8, of bytes that rle-pack wrote [0]: red, green, blue, alpha of pixel for pixel.

    Bits: 32 the number of values, 5 the bits of a value less 1, 4 times 4 the bits of a run's length less 1; then runs:
    1 whether a value repeats, 2 which of the four lengths, the length less 1, and one value or as many as the length.

    [0]: https://github.com/thi-ng/umbrella/tree/develop/packages/rle-pack

    Raises:
        ValueError: If the bytes end within a run.
    """
    bits = np.unpackbits(np.asarray(packed, dtype=np.uint8))
    stream = bits.tobytes().translate(bytes.maketrans(b"\x00\x01", b"01")).decode("ascii")

    def read(at: int, count: int) -> int:
        return int(stream[at : at + count], 2)

    total, word = read(0, 32), read(32, 5) + 1
    lengths = [read(37 + 4 * index, 4) + 1 for index in range(4)]
    values, done, at = np.zeros(total, dtype=np.uint8), 0, 53
    weights = 1 << np.arange(word - 1, -1, -1)
    while done < total:
        repeats, width = stream[at] == "1", lengths[read(at + 1, 2)]
        run = read(at + 3, width) + 1
        at += 3 + width
        count = 1 if repeats else run
        words = bits[at : at + count * word].reshape(count, word) @ weights
        values[done : done + run] = words
        done, at = done + run, at + count * word
    return values


FORMAT = LabelFormat("Label Studio", _files, _read)
