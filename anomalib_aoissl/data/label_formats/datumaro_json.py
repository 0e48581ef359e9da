# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Datumaro, also of Intel Geti's projects: a JSON of items for each subset; z_order says what is on top [0].

[0]: https://open-edge-platform.github.io/datumaro/, data formats, datumaro
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from anomalib_aoissl.data.errors import DatasetError
from anomalib_aoissl.data.labels.content import LabelledPicture, LabelSet, Shape
from anomalib_aoissl.data.labels.shapes.geometry import box, ellipse
from anomalib_aoissl.data.labels.source import LabelFormat, Source
from anomalib_aoissl.data.labels.texts import class_list, counted, get, points, run_mask

_Entry: TypeAlias = dict[str, Any]

_EMPTY_LABELS = {"empty", "no object", "empty label"}  # Geti marks pictures without objects by such a label


def _is_datumaro(content: object) -> bool:
    return isinstance(content, dict) and isinstance(content.get("items"), list) and "categories" in content


def _files(source: Source) -> list[Path]:
    return source.passing_json_files(_is_datumaro)


def _read(files: Sequence[Path], source: Source) -> LabelSet:
    """Return the labels of all subsets."""
    found = LabelSet.joined("Datumaro", (_of_file(source.json(path), path) for path in files))
    used = {shape.label for image in found.images for shape in image.shapes}
    kept = [name for name in found.classes if name in used or name.lower() not in _EMPTY_LABELS]
    return replace(found, classes=tuple(kept))


def _of_file(content: _Entry, path: Path) -> LabelSet:
    """Return the labels of one subset."""
    table = get(get(content, "categories", dict, path, "the file"), "label", dict, path, '"categories"')
    labels = get(table, "labels", list, path, '"label"')
    names = class_list([get(entry, "name", str, path, f"label {i + 1}") for i, entry in enumerate(labels)], path)
    without_area: Counter[str] = Counter()
    images = [_image(entry, number, names, path, without_area) for number, entry in enumerate(content["items"], 1)]
    note = f"{path}: {counted(without_area)} annotations have no area and are left out"
    return LabelSet("Datumaro", tuple(names), images, [note] if without_area else [])


def _image(entry: _Entry, number: int, names: Sequence[str], path: Path, without_area: Counter[str]) -> LabelledPicture:
    """Return the labels of one item."""
    where = f"item {number}"
    key = get(entry, "id", str, path, where)
    picture = entry.get("image") or entry.get("media") or {}
    annotations = get(entry, "annotations", list, path, where)
    told = [picture, *(entry.get("rle") for entry in annotations if isinstance(entry, dict))]  # the first that says it
    given = next((entry["size"] for entry in told if isinstance(entry, dict) and entry.get("size")), None)
    size = (int(given[0]), int(given[1])) if isinstance(given, list) and len(given) == 2 else None
    shapes = []
    for count, annotation in enumerate(annotations, start=1):
        shape = _shape(annotation, names, size, path, f"{where} ({key}), annotation {count}")
        if shape is None:
            without_area[str(annotation.get("type"))] += 1
        else:
            shapes.append(shape)
    name = picture.get("path") if isinstance(picture, dict) else None
    return LabelledPicture(str(name or key), path, size, shapes)


def _shape(entry: _Entry, names: Sequence[str], size: tuple[int, int] | None, path: Path, where: str) -> Shape | None:
    """Return one annotation; None where it has no area."""
    kind = get(entry, "type", str, path, where)
    if kind not in {"polygon", "mask", "bbox", "ellipse", "rotated_bbox"}:
        return None
    index = get(entry, "label_id", int, path, where)
    if not 0 <= index < len(names):
        msg = f'{path}: {where}: "label_id" {index} is none of the {len(names)} labels. Export the labels again.'
        raise DatasetError(msg)
    label, layer = names[index], int(entry.get("z_order") or 0)
    if kind == "mask":
        return Shape(label, mask=run_mask(get(entry, "rle", dict, path, where), size, path, where), layer=layer)
    if kind == "polygon":
        return Shape(label, (points(get(entry, "points", list, path, where), path, where),), layer=layer)
    if kind == "ellipse":
        (left, top), (right, bottom) = points(get(entry, "points", list, path, where), path, where)
        radii = (right - left) / 2, (bottom - top) / 2
        return Shape(label, (ellipse((left + right) / 2, (top + bottom) / 2, *radii),), layer=layer)
    if kind == "rotated_bbox":
        x, y, width, height, turn = (float(value) for value in get(entry, "rbbox", list, path, where))
        return Shape(label, (box(x - width / 2, y - height / 2, x + width / 2, y + height / 2, turn),), layer=layer)
    (left, top), (width, height) = points(get(entry, "bbox", list, path, where), path, where)
    return Shape(label, (box(left, top, left + width, top + height),), layer=layer)


FORMAT = LabelFormat("Datumaro", _files, _read)
