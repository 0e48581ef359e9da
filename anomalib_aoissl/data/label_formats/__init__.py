# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Formats of labels, one a file: each finds itself in a folder, is read to `LabelSet`, and is written where it can be.

A new format is a file with a `LabelFormat` called ``FORMAT``, and a line here.
"""

from __future__ import annotations

from anomalib_aoissl.data.errors import DatasetError
from anomalib_aoissl.data.finding.folders import say
from anomalib_aoissl.data.labels.content import LabelSet
from anomalib_aoissl.data.labels.source import LabelFormat, Source

from . import cityscapes, coco, cvat, datumaro_json, label_studio, labelme, masks, pascal_voc, yolo

FORMATS: tuple[LabelFormat, ...] = (
    coco.FORMAT,
    datumaro_json.FORMAT,
    label_studio.FORMAT,
    labelme.FORMAT,
    cvat.FORMAT,
    pascal_voc.FORMAT,
    cityscapes.FORMAT,
    yolo.FORMAT,
    masks.FORMAT,
)
"""In the order in which they are looked for; the first that is found is read."""

WRITTEN = {form.name.lower(): form for form in FORMATS if form.write is not None}
"""The formats that can be written, by the name that ``--format`` takes."""


def find_format(source: Source) -> LabelFormat | None:
    """Return the format of an export; None where it is none of those that are known."""
    found = [form for form in FORMATS if form.files(source)]
    say(f"formats are found in {source.path}, the first is read; give its label file to choose", _several(found))
    return found[0] if found else None


def read_labels(source: Source) -> LabelSet:
    """Return the labels of an export; the format is found by itself.

    Raises:
        DatasetError: If the format is not known, a file of it is broken, or it holds no labels.
    """
    form = find_format(source)
    if form is None:
        known = ", ".join(form.name for form in FORMATS)
        msg = f"{source.path}: holds labels of no known format. Export them from the tool as one of {known}."
        raise DatasetError(msg)
    labels = form.read(form.files(source), source)
    count = len(labels.images)
    if not any(image.labelled for image in labels.images):
        why = f" ({labels.notes[0]})" if labels.notes else ""
        msg = f"{source.path}: this {form.name} export of {count} pictures holds no labels{why}. Export it again."
        raise DatasetError(msg)
    return labels


def _several(found: list[LabelFormat]) -> list[str]:
    """Return the formats' names where there is more than one, beside folders of masks."""
    names = [form.name for form in found if form is not masks.FORMAT]
    return names if len(names) > 1 else []
