# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""YOLO-seg: a text file for each picture, a polygon a line, in shares of the picture; data.yaml names the classes [0].

[0]: https://docs.ultralytics.com/datasets/segment/
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from anomalib_aoissl.data.describing.class_names import without_background
from anomalib_aoissl.data.describing.description import read_text
from anomalib_aoissl.data.errors import DatasetError
from anomalib_aoissl.data.labels.content import LabelledPicture, LabelSet, Shape
from anomalib_aoissl.data.labels.source import LabelFormat, Source
from anomalib_aoissl.data.labels.texts import class_list, floats, points
from anomalib_aoissl.data.reading import image_size

_FOLDERS = {"labels", "obj_train_data", "obj_valid_data", "obj_test_data"}
_LISTS = ("classes.txt", "obj.names")


def _files(source: Source) -> list[Path]:
    found = [path for path in source.named(".txt") if path.name not in _LISTS]  # some tools write the list beside them
    return [path for path in found if _FOLDERS & {*path.relative_to(source.root).parts[:-1]}]


def _read(files: Sequence[Path], source: Source) -> LabelSet:
    """Return the labels; a picture's size is needed for them, so those without a picture are left to be reported."""
    names = _names(source)
    images, notes = [], []
    boxes = 0
    for path in files:
        whole = path.relative_to(source.root).with_suffix("").as_posix()
        picture = source.pictures.find(whole)
        if picture is None:
            images.append(LabelledPicture(whole, path))
            continue
        size = image_size(picture)  # of the upright picture, on which the format's tools draw
        shapes = []
        for number, line in enumerate(read_text(path).splitlines(), start=1):
            values = line.split()
            if len(values) == 5:
                boxes += 1
            elif values:
                shapes.append(_shape(values, names, size, path, f"line {number}"))
        images.append(LabelledPicture(whole, path, shapes=shapes))
    if boxes:
        notes.append(f"{source.path}: {boxes} lines are boxes, not polygons, and are left out")
    return LabelSet("YOLO", names, images, notes)


def _shape(values: list[str], names: Sequence[str], size: tuple[int, int], path: Path, where: str) -> Shape:
    """Return the polygon of a line."""
    if not values[0].isdecimal() or int(values[0]) >= len(names):
        msg = f"{path}: {where}: the class {values[0]} has no name; {len(names)} are named. Export the labels again."
        raise DatasetError(msg)
    if len(values) < 7 or len(values) % 2 == 0:
        msg = f"{path}: {where}: must be a class and three or more pairs of x and y, got {len(values)} numbers."
        raise DatasetError(msg)
    ring = points(floats(values[1:], path, where), path, where) * (size[1], size[0])
    return Shape(names[int(values[0])], (ring,))


def _names(source: Source) -> tuple[str, ...]:
    """Return the classes of data.yaml, or of a list with a name a line."""
    for path in source.named(".yaml", ".yml"):
        names = _yaml(path).get("names")
        if isinstance(names, dict):
            try:
                names = [names[index] for index in range(len(names))]
            except KeyError as error:
                msg = f'{path}: "names" must have the indices 0 to {len(names) - 1}, each once.'
                raise DatasetError(msg) from error
        if isinstance(names, list):
            return class_list(names, path)
    for path in source.named(*_LISTS):
        return class_list([line for line in read_text(path).splitlines() if line.strip()], path)
    if source.classes:
        return without_background(source.classes)
    msg = f"{source.path}: has no data.yaml with names, nor {' or '.join(_LISTS)}, so that its classes have no names."
    raise DatasetError(msg)


def _yaml(path: Path) -> dict[str, Any]:
    """Return what a YAML file holds."""
    import yaml

    try:
        content = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        msg = f"{path}: is broken YAML ({' '.join(str(error).split())}). Export it again, or mend the line."
        raise DatasetError(msg) from error
    return content if isinstance(content, dict) else {}


FORMAT = LabelFormat("YOLO", _files, _read)
