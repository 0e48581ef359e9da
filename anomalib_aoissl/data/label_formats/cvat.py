# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""CVAT for images 1.1: one XML with polygons, boxes, ellipses and masks; z_order says what is on top [0].

[0]: https://docs.cvat.ai/docs/manual/advanced/xml_format/
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np

from anomalib_aoissl.data.errors import DatasetError
from anomalib_aoissl.data.files import whole_file
from anomalib_aoissl.data.indices import IGNORE_INDEX
from anomalib_aoissl.data.labels.content import IGNORE_NAME, LabelledPicture, LabelSet, MaskedImage, Shape
from anomalib_aoissl.data.labels.shapes.geometry import box, ellipse, of_runs
from anomalib_aoissl.data.labels.shapes.tracing import parts
from anomalib_aoissl.data.labels.source import LabelFormat, Source
from anomalib_aoissl.data.labels.texts import class_list, counted, floats, points, read_xml

_WITHOUT_AREA = {"polyline", "points", "tag", "cuboid", "skeleton"}


def _is_cvat(path: Path) -> bool:
    """Tell whether an XML begins as CVAT's does; the rest is read later, where a fault names its line."""
    with path.open("rb") as file:
        return b"<annotations" in file.read(4096)


def _files(source: Source) -> list[Path]:
    return [path for path in source.named(".xml") if _is_cvat(path)]


def _read(files: Sequence[Path], _: Source) -> LabelSet:
    """Return the labels of one or more files."""
    found = LabelSet.joined("CVAT", map(_of_file, files))
    used = {shape.label for image in found.images for shape in image.shapes}
    return replace(found, classes=(*found.classes, *sorted(used - set(found.classes))))


def _of_file(path: Path) -> LabelSet:
    """Return the labels of one file."""
    root = read_xml(path)
    if root.find("track") is not None:
        msg = f'{path}: is "CVAT for video". Export the task as "CVAT for images 1.1".'
        raise DatasetError(msg)
    names = [label.findtext("name") for label in root.findall("./meta//labels/label")]
    classes = class_list(list(dict.fromkeys(names)) if _several_tasks(root) else names, path)
    without_area: Counter[str] = Counter()
    images = [_image(entry, path, without_area) for entry in root.iter("image")]
    note = f"{path}: {counted(without_area)} shapes have no area and are left out. Draw them as polygons or masks"
    return LabelSet("CVAT", tuple(classes), images, [note] if without_area else [])


def _several_tasks(root: ET.Element) -> bool:
    """Tell whether the file is of a project, which may list its labels once for each task."""
    return len(root.findall("./meta//labels")) > 1


def _image(entry: ET.Element, path: Path, without_area: Counter[str]) -> LabelledPicture:
    """Return the labels of one image."""
    name = entry.get("name")
    if not name:
        msg = f"{path}: image {entry.get('id')!r} has no name. Export the labels again."
        raise DatasetError(msg)
    height, width = floats([entry.get("height"), entry.get("width")], path, f"image {name}")
    shapes = []
    for number, shape in enumerate(entry, start=1):
        if shape.tag in _WITHOUT_AREA:
            without_area[shape.tag] += 1
            continue
        where = f"image {name}, {shape.tag} {number}"
        label = (shape.get("label") or "").strip()
        if not label:
            msg = f"{path}: {where} has no label. Name it in the tool."
            raise DatasetError(msg)
        shapes.append(_shape(shape, label, path, where))
    return LabelledPicture(name, path, (int(height), int(width)), shapes)


def _shape(entry: ET.Element, label: str, path: Path, where: str) -> Shape:
    """Return one shape with an area."""

    def numbers(*keys: str) -> list[float]:
        return floats([entry.get(key) for key in keys], path, where)

    (layer,) = floats([entry.get("z_order", "0")], path, where)
    (turn,) = floats([entry.get("rotation", "0")], path, where)
    if entry.tag == "polygon":
        pairs = [pair.split(",") for pair in (entry.get("points") or "").split(";")]
        return Shape(label, (points(pairs, path, where),), layer=int(layer))
    if entry.tag == "box":
        left, top, right, bottom = numbers("xtl", "ytl", "xbr", "ybr")
        return Shape(label, (box(left, top, right, bottom, turn),), layer=int(layer))
    if entry.tag == "ellipse":
        x, y, radius_x, radius_y = numbers("cx", "cy", "rx", "ry")
        return Shape(label, (ellipse(x, y, radius_x, radius_y, turn),), layer=int(layer))
    if entry.tag == "mask":
        left, top, width, height = (int(value) for value in numbers("left", "top", "width", "height"))
        runs = floats((entry.get("rle") or "").split(","), path, where)

        def mask() -> np.ndarray:
            try:
                return of_runs(np.array(runs), (height, width), columns=False)
            except ValueError as error:
                msg = f"{path}: {where}: {error}. Export the labels again."
                raise DatasetError(msg) from error

        return Shape(label, mask=mask, corner=(top, left), layer=int(layer))
    msg = f"{path}: {where}: shapes of this kind are not read. Draw it as a polygon or a mask."
    raise DatasetError(msg)


def _write(root: Path, images: Iterable[MaskedImage], classes: Sequence[str]) -> None:
    """Write ``annotations.xml``, which CVAT uploads as "CVAT 1.1"."""
    top = ET.Element("annotations")
    ET.SubElement(top, "version").text = "1.1"
    labels = ET.SubElement(ET.SubElement(ET.SubElement(top, "meta"), "task"), "labels")
    named = [*enumerate(classes, start=1), (IGNORE_INDEX, IGNORE_NAME)]
    for number, image in enumerate(images):
        height, width = image.mask.shape
        place = {"id": str(number), "name": image.name, "width": str(width), "height": str(height)}
        entry = ET.SubElement(top, "image", place)
        for index, name in named:
            for ring, _, _ in parts(image.mask, index):
                text = ";".join(f"{x:.2f},{y:.2f}" for x, y in ring)
                ET.SubElement(entry, "polygon", label=name, source="file", occluded="0", points=text, z_order="0")
    for index, name in named:
        if index != IGNORE_INDEX or top.find(f"./image/polygon[@label='{IGNORE_NAME}']") is not None:
            ET.SubElement(ET.SubElement(labels, "label"), "name").text = name
    ET.indent(top)
    with whole_file(root / "annotations.xml") as temporary:
        ET.ElementTree(top).write(temporary, encoding="utf-8", xml_declaration=True)


FORMAT = LabelFormat("CVAT", _files, _read, _write)
