# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Pascal VOC: SegmentationClass/ holds a mask for each picture, in colours that labelmap.txt names [0].

[0]: http://host.robots.ox.ac.uk/pascal/VOC/voc2012/, and CVAT's "Segmentation mask 1.1"
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from anomalib_aoissl.data.describing.class_names import BACKGROUND_NAMES
from anomalib_aoissl.data.describing.description import read_text
from anomalib_aoissl.data.errors import DatasetError
from anomalib_aoissl.data.indices import IGNORE_INDEX
from anomalib_aoissl.data.labels.content import IGNORE_NAME, LabelledPicture, LabelSet
from anomalib_aoissl.data.labels.source import LabelFormat, Source
from anomalib_aoissl.data.labels.texts import class_list
from anomalib_aoissl.data.reading import Colour, read_mask

_FOLDER, _MAP = "SegmentationClass", "labelmap.txt"
_VOID: Colour = (224, 224, 192)  # the border between objects
_VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


def _files(source: Source) -> list[Path]:
    return [path for path in source.named(".png") if _FOLDER in path.parts]


def _read(files: Sequence[Path], source: Source) -> LabelSet:
    """Return the labels: by the colours of labelmap.txt, and by VOC's own indices where there is none."""
    maps = source.named(_MAP)
    classes, colours = colour_table(_entries(maps[0]), maps[0]) if maps else (_VOC_CLASSES, None)
    if colours is not None:
        colours.setdefault(_VOID, IGNORE_INDEX)
    images = []
    for path in files:
        below = path.parts[len(path.parts) - 1 - path.parts[::-1].index(_FOLDER) + 1 :]
        reader = partial(read_mask, path, num_classes=len(classes) + 1, colours=colours)
        images.append(LabelledPicture("/".join(below).rsplit(".", 1)[0], path, indices=reader))
    notes = [] if maps else [f"{source.path}: has no {_MAP}; its indices are taken as the 20 classes of Pascal VOC"]
    return LabelSet("Pascal VOC", classes, images, notes)


def _entries(path: Path) -> list[tuple[str, list[str]]]:
    """Return name and colour of the lines ``name:red,green,blue:parts:actions``."""
    lines = [line.split("#", 1)[0].strip() for line in read_text(path).splitlines()]
    parts = [line.split(":") for line in lines if line]
    given = [(part[0], part[1].split(",") if len(part) > 1 and part[1] else None) for part in parts]
    return [(name, voc_colour(i) if values is None else values) for i, (name, values) in enumerate(given)]


def voc_colour(index: int) -> list[str]:
    """Return red, green and blue of VOC's own colour map, which a line without a colour means.

    Bits 0 to 2 of the index are the highest of the three, bits 3 to 5 the next, and so on.
    """
    bits = [[(index >> (3 * level + channel)) & 1 for level in range(3)] for channel in range(3)]
    return [str(sum(bit << (7 - level) for level, bit in enumerate(channel))) for channel in bits]


def colour_table(entries: Sequence[tuple[str, Sequence[str]]], path: Path) -> tuple[tuple[str, ...], dict[Colour, int]]:
    """Return the classes without background, and the class index of each colour; that of "ignore" is 255.

    Raises:
        DatasetError: If a class has no name or no colour, or two have one name or one colour.
    """
    names = class_list([name for name, _ in entries], path)
    plain = [name for name in names if name.lower() not in {*BACKGROUND_NAMES, IGNORE_NAME}]
    colours: dict[Colour, int] = {}
    for name, values in zip(names, [values for _, values in entries], strict=True):
        try:
            red, green, blue = (int(value) for value in values)
        except ValueError as error:
            msg = f"{path}: the class {name!r} has no colour of three numbers ({','.join(values)!r}). Mend the line."
            raise DatasetError(msg) from error
        if (red, green, blue) in colours:
            msg = f"{path}: the class {name!r} has the colour {(red, green, blue)} of another. Give it one of its own."
            raise DatasetError(msg)
        index = IGNORE_INDEX if name.lower() == IGNORE_NAME else 0
        colours[red, green, blue] = 1 + plain.index(name) if name in plain else index
    return tuple(plain), colours


FORMAT = LabelFormat("Pascal VOC", _files, _read)
