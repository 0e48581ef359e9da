# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""LabelMe: a JSON beside each picture, with polygons, boxes, circles and masks [0].

[0]: https://github.com/wkentaro/labelme, labelme/label_file.py
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from anomalib_aoissl.data.describing.description import read_text
from anomalib_aoissl.data.errors import DatasetError
from anomalib_aoissl.data.files import write_text
from anomalib_aoissl.data.indices import IGNORE_INDEX
from anomalib_aoissl.data.labels.content import IGNORE_NAME, LabelledPicture, LabelSet, MaskedImage, Shape
from anomalib_aoissl.data.labels.shapes.geometry import box, ellipse
from anomalib_aoissl.data.labels.shapes.tracing import parts
from anomalib_aoissl.data.labels.source import LabelFormat, Source
from anomalib_aoissl.data.labels.texts import class_list, counted, get, png_mask, points, read_json

_LISTS = ("labels.txt", "classes.txt", "class_names.txt")
_IGNORED = "__ignore__"  # LabelMe's own name of what is not counted, also as a shape's label
_NO_CLASSES = {_IGNORED, "_background_"}  # first lines of LabelMe's own labels.txt
_WITHOUT_AREA = {"line", "linestrip", "point", "points"}


def _is_labelme(content: object) -> bool:
    return isinstance(content, dict) and isinstance(content.get("shapes"), list)


def _files(source: Source) -> list[Path]:
    return source.json_files(_is_labelme)


def _read(files: Sequence[Path], source: Source) -> LabelSet:
    """Return the labels; the classes are those of labels.txt where there is one, else in the order of their names."""
    images, notes = [], []
    without_area: Counter[str] = Counter()
    for path in files:
        content = read_json(path)
        if not _is_labelme(content):
            notes.append(f"{path}: is no LabelMe file and is left out")
            continue
        images.append(_image(content, path, source.root, without_area))
    if without_area:
        counts = counted(without_area)
        notes.append(f"{source.path}: {counts} shapes have no area and are left out. Draw them as polygons")
    used = sorted({shape.label for image in images for shape in image.shapes})
    return LabelSet("LabelMe", _classes(used, source), images, notes)


def _classes(used: list[str], source: Source) -> tuple[str, ...]:
    """Return the classes: those that a list names in its order, and then the others that are used."""
    lists = [path for name in _LISTS for path in source.named(name)]
    names = [line.strip() for line in read_text(lists[0]).splitlines() if line.strip()] if lists else []
    known = class_list([name for name in names if name not in _NO_CLASSES], lists[0]) if lists else ()
    return (*known, *(name for name in used if name not in known))


def _image(content: dict[str, Any], path: Path, root: Path, without_area: Counter[str]) -> LabelledPicture:
    """Return the labels of one file; polygons of one group are parts of one object in any case."""
    shapes = []
    for number, entry in enumerate(content["shapes"], start=1):
        where = f"shape {number}"
        label = get(entry, "label", str, path, where).strip()
        if not label:
            msg = f"{path}: {where} has no label. Name it in the tool."
            raise DatasetError(msg)
        label = IGNORE_NAME if label == _IGNORED else label
        kind = entry.get("shape_type") or "polygon"
        if kind in _WITHOUT_AREA:
            without_area[kind] += 1
            continue
        shapes.append(_shape(entry, kind, label, path, where))
    name = _picture(str(content.get("imagePath") or path.stem), path, root)
    size = content.get("imageHeight"), content.get("imageWidth")
    known = all(isinstance(side, int) for side in size)
    return LabelledPicture(name, path, (int(size[0]), int(size[1])) if known else None, shapes)  # type: ignore[arg-type]


def _picture(given: str, path: Path, root: Path) -> str:
    """Return the picture's path below the export's folder, or what is given where the file leads to none there.

    LabelMe names it as seen from the folder of the file, so that a picture of this name may lie in other folders too.
    """
    beside, top = (Path(os.path.normpath(place)) for place in (path.parent / given.replace("\\", "/"), root))
    return beside.relative_to(top).as_posix() if beside.is_file() and beside.is_relative_to(top) else given


def _shape(entry: dict[str, Any], kind: str, label: str, path: Path, where: str) -> Shape:
    """Return one shape with an area."""
    ring = points(get(entry, "points", list, path, where), path, where)
    if kind == "polygon":
        return Shape(label, (ring,))
    if kind == "rectangle" and len(ring) == 2:
        (left, top), (right, bottom) = ring.min(axis=0), ring.max(axis=0)
        return Shape(label, (box(left, top, right, bottom),))
    if kind == "rectangle" and len(ring) == 4:  # newer versions store the corners
        return Shape(label, (ring,))
    if kind == "circle" and len(ring) == 2:
        radius = float(np.linalg.norm(ring[1] - ring[0]))
        return Shape(label, (ellipse(float(ring[0, 0]), float(ring[0, 1]), radius, radius),))
    if kind == "mask" and len(ring):
        left, top = np.round(ring[0]).astype(int)  # where the mask's first pixel lies
        mask = png_mask(get(entry, "mask", str, path, where), "L", path, where)
        return Shape(label, mask=mask, corner=(int(top), int(left)))
    msg = f"{path}: {where}: a {kind!r} with {len(ring)} points is not read. Draw it as a polygon."
    raise DatasetError(msg)


def _write(root: Path, images: Iterable[MaskedImage], classes: Sequence[str]) -> None:
    """Write a JSON beside each picture, and labels.txt for ``labelme --labels``."""
    for image in images:
        height, width = image.mask.shape
        named = [*enumerate(classes, start=1), (IGNORE_INDEX, IGNORE_NAME)]
        shapes = [
            {"label": name, "points": ring.tolist(), "group_id": None, "description": "", "shape_type": "polygon",
             "flags": {}}
            for index, name in named
            for ring, _, _ in parts(image.mask, index)
        ]  # fmt: skip
        content = {
            "version": "5.5.0",
            "flags": {},
            "shapes": shapes,
            "imagePath": PurePosixPath(image.name).name,
            "imageData": None,
            "imageHeight": height,
            "imageWidth": width,
        }
        path = root / "images" / PurePosixPath(image.name).with_suffix(".json")
        write_text(path, json.dumps(content, indent=1))
    write_text(root / "labels.txt", "".join(f"{name}\n" for name in classes))


FORMAT = LabelFormat("LabelMe", _files, _read, _write)
