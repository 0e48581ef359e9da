# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Cityscapes colours: gtFine/ holds a coloured mask for each picture; label_colors.txt names the colours [0].

[0]: https://www.cityscapes-dataset.com/, and the exports "Cityscapes 1.0" of CVAT and Datumaro
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from anomalib_aoissl.data.describing.description import read_text
from anomalib_aoissl.data.errors import DatasetError
from anomalib_aoissl.data.labels.content import LabelledPicture, LabelSet
from anomalib_aoissl.data.labels.source import LabelFormat, Source
from anomalib_aoissl.data.reading import read_mask

from .pascal_voc import colour_table

_END, _MAP = "_gtfine_color.png", "label_colors.txt"


def _files(source: Source) -> list[Path]:
    return source.named(_END)


def _read(files: Sequence[Path], source: Source) -> LabelSet:
    """Return the labels by their colours."""
    maps = source.named(_MAP)
    if not maps:
        msg = f"{source.path}: has no {_MAP}. Write it, a class a line: 255 0 0 wire."
        raise DatasetError(msg)
    lines = [line.split("#", 1)[0].split() for line in read_text(maps[0]).splitlines()]
    classes, colours = colour_table([(" ".join(line[3:]), line[:3]) for line in lines if line], maps[0])
    images = []
    for path in files:
        stem = path.name[: -len(_END)]
        name = next((name for name in (f"{stem}_leftImg8bit", stem) if source.pictures.find(name) is not None), stem)
        whole = path.with_name(name).relative_to(source.root).as_posix()
        images.append(LabelledPicture(whole, path, indices=partial(read_mask, path, colours=colours)))
    return LabelSet("Cityscapes", classes, images)


FORMAT = LabelFormat("Cityscapes", _files, _read)
