# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""COCO: one JSON with images, categories and annotations; polygons and run lengths [0].

[0]: https://cocodataset.org/#format-data
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from anomalib_aoissl.data.errors import DatasetError
from anomalib_aoissl.data.files import write_text
from anomalib_aoissl.data.indices import IGNORE_INDEX
from anomalib_aoissl.data.labels.content import IGNORE_NAME, LabelledPicture, LabelSet, MaskedImage, Shape
from anomalib_aoissl.data.labels.shapes.geometry import area_of, contains
from anomalib_aoissl.data.labels.shapes.tracing import parts
from anomalib_aoissl.data.labels.source import LabelFormat, Source
from anomalib_aoissl.data.labels.texts import class_list, get, points, run_mask

LABEL_FILE = Path("annotations", "instances_default.json")


def _is_coco(content: object) -> bool:
    return isinstance(content, dict) and isinstance(content.get("images"), list) and "categories" in content


def _files(source: Source) -> list[Path]:
    return source.passing_json_files(_is_coco)


def _read(files: Sequence[Path], source: Source) -> LabelSet:
    """Return the labels of one or more files."""
    return LabelSet.joined("COCO", (_of_file(source.json(path), path) for path in files))


def _of_file(content: dict[str, Any], path: Path) -> LabelSet:
    """Return the labels of one file."""
    names, notes = _categories(content, path), list[str]()
    return LabelSet("COCO", tuple(names.values()), _images(content, names, path, notes), notes)


def _categories(content: dict[str, Any], path: Path) -> dict[int, str]:
    """Return the name of each category's id."""
    entries = get(content, "categories", list, path, "the file")
    ids = [get(entry, "id", int, path, f"category {index + 1}") for index, entry in enumerate(entries)]
    twice = next((key for index, key in enumerate(ids) if key in ids[:index]), None)
    if twice is not None:
        msg = (
            f"{path}: two categories have the id {twice}, so that their shapes cannot be told apart. Give one another."
        )
        raise DatasetError(msg)
    return dict(zip(ids, class_list([entry.get("name") for entry in entries], path), strict=True))


def _images(content: dict[str, Any], names: dict[int, str], path: Path, notes: list[str]) -> list[LabelledPicture]:
    """Return the labels of each image of a file."""
    shapes: dict[object, list[Shape]] = {}
    sizes: dict[object, tuple[int, int] | None] = {}
    entries = []
    for number, entry in enumerate(content["images"], start=1):
        where = f"image {number}"
        key = get(entry, "id", (int, str), path, where)
        if key in shapes:
            msg = f"{path}: {where}: has the id {key!r} of another image. Export the labels again."
            raise DatasetError(msg)
        shapes[key] = []
        height, width = entry.get("height"), entry.get("width")
        sizes[key] = (height, width) if isinstance(height, int) and isinstance(width, int) else None
        entries.append((key, get(entry, "file_name", str, path, where), entry.get("device")))
    _add_shapes(shapes, get(content, "annotations", list, path, "the file"), names, sizes, path, notes)
    return [
        LabelledPicture(name, path, sizes[key], shapes[key], device=device if isinstance(device, str) else None)
        for key, name, device in entries
    ]


def _add_shapes(
    shapes: dict[object, list[Shape]],
    entries: list[Any],
    names: dict[int, str],
    sizes: dict[object, tuple[int, int] | None],
    path: Path,
    notes: list[str],
) -> None:
    """Add the annotations to the shapes of their images."""
    boxes = 0
    for number, entry in enumerate(entries, start=1):
        where = f"annotation {number}"
        image, category = get(entry, "image_id", (int, str), path, where), get(entry, "category_id", int, path, where)
        if image not in shapes or category not in names:
            what = f'"image_id" {image!r}' if image not in shapes else f'"category_id" {category}'
            msg = f"{path}: {where}: {what} is none of the file's. Export the labels again."
            raise DatasetError(msg)
        segmentation = entry.get("segmentation")
        if not segmentation:
            boxes += 1
        elif isinstance(segmentation, dict):
            shapes[image].append(Shape(names[category], mask=run_mask(segmentation, sizes[image], path, where)))
            height, width = segmentation["size"]  # validated with the mask
            sizes[image] = (height, width)
        else:
            shapes[image].append(_of_polygons(segmentation, names[category], entry.get("area"), path, where))
    if boxes:
        notes.append(f"{path}: {boxes} annotations have no segmentation, only a box, and are left out")


def _of_polygons(segmentation: object, label: str, area: object, path: Path, where: str) -> Shape:
    """Return an object of polygons; they are its parts, or holes of each other where its area says so."""
    if not isinstance(segmentation, list) or not isinstance(segmentation[0], list):
        msg = f'{path}: {where}: "segmentation" is no list of polygons. Export the labels again.'
        raise DatasetError(msg)
    rings = tuple(points(ring, path, where) for ring in segmentation)
    return Shape(label, rings, holes=isinstance(area, int | float) and area > 0 and _are_holes(rings, area))


def _are_holes(rings: Sequence[np.ndarray], area: float) -> bool:
    """Tell whether rings that lie inside others are holes: the area is nearer to that with holes than to that without.

    An area that is below that with holes by half of their area or more is of something else, and says nothing.
    """
    sizes = [abs(area_of(ring)) for ring in rings]
    if area >= sum(sizes) - min(sizes):  # of parts beside each other; most objects end here
        return False
    around = [sum(contains(outer, ring) for outer in rings if outer is not ring) for ring in rings]
    without = sum(size for size, count in zip(sizes, around, strict=True) if not count)
    with_holes = sum(-size if count % 2 else size for size, count in zip(sizes, around, strict=True))
    return abs(with_holes - area) < (without - with_holes) / 2


def _write(root: Path, images: Iterable[MaskedImage], classes: Sequence[str]) -> None:
    """Write ``annotations/instances_default.json``: a polygon for each connected part, ignored pixels as a class."""
    ids = dict(enumerate(classes, start=1))
    ids[IGNORE_INDEX] = IGNORE_NAME
    listed: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, image in enumerate(images, start=1):
        height, width = image.mask.shape
        entry = {"id": number, "file_name": image.name, "height": height, "width": width}
        listed.append(entry if image.device is None else {**entry, "device": image.device})
        for index in ids:
            for ring, area, box in parts(image.mask, index):
                annotation = {"id": len(annotations) + 1, "image_id": number, "category_id": index, "iscrowd": 0}
                flat = [float(value) for value in ring.ravel()]
                annotations.append({**annotation, "segmentation": [flat], "area": area, "bbox": list(box)})
    if not any(annotation["category_id"] == IGNORE_INDEX for annotation in annotations):
        del ids[IGNORE_INDEX]
    content = {
        "info": {"description": "class-index masks as polygons, by anomalib-aoissl"},
        "licenses": [],
        "categories": [{"id": index, "name": name, "supercategory": ""} for index, name in ids.items()],
        "images": listed,
        "annotations": annotations,
    }
    write_text(root / LABEL_FILE, json.dumps(content))


FORMAT = LabelFormat("COCO", _files, _read, _write)
