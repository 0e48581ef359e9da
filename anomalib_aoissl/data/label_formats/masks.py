# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Class-index masks, as `SegmentationFolder` reads them and as predictions are written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

from anomalib_aoissl.data.describing.class_colours import write_class_index_png
from anomalib_aoissl.data.describing.description import CLASSES_NAME, read_own_description
from anomalib_aoissl.data.files import write_text
from anomalib_aoissl.data.finding.listing import group_of, groups_by_stem
from anomalib_aoissl.data.labels.content import LabelledPicture, LabelSet, MaskedImage
from anomalib_aoissl.data.labels.source import LabelFormat, Source
from anomalib_aoissl.data.reading import MASK_SUFFIXES

_PLACES = ("masks", "train/masks", "val/masks", "test/masks")


def _files(source: Source) -> list[Path]:
    folders = _folders(source)
    return [path for path in source.named(*MASK_SUFFIXES) if any(folder in path.parents for folder in folders)]


def _folders(source: Source) -> list[Path]:
    """Return the folders of masks; the folder itself where it is called so."""
    found = [source.root / place for place in _PLACES]
    bare = source.root.name == "masks" and not any(folder.is_dir() for folder in found)
    return [source.root] if bare else found


def _read(files: Sequence[Path], source: Source) -> LabelSet:
    """Return the labels; the class names are those of dataset.json or classes.txt, else given ones."""
    description = read_own_description(source.root, source.classes)
    groups, images = groups_by_stem(description.groups), []
    for path in files:
        folder = next(folder for folder in _folders(source) if folder in path.parents)
        name = path.relative_to(folder).with_suffix("").as_posix()
        whole = (folder.parent / "images" / name).relative_to(folder.parent).as_posix()
        device = group_of(name, _picture_files(whole, source), groups) if groups else None
        images.append(LabelledPicture(whole, path, indices=partial(description.read_mask, path), device=device))
    return LabelSet("masks", description.classes[1:], images)


def _picture_files(name: str, source: Source) -> list[Path]:
    """Return the files of the picture of a mask; none where it is missing."""
    picture = source.pictures.find(name)
    return [] if picture is None else source.pictures.file_format.files(picture)


def _write(root: Path, images: Iterable[MaskedImage], classes: Sequence[str]) -> None:
    """Write a palette PNG for each picture, and classes.txt."""
    for image in images:
        path = root / image.split / "masks" / f"{image.item}.png"
        write_class_index_png(path, image.mask, len(classes) + 1)
    write_text(root / CLASSES_NAME, "".join(f"{name}\n" for name in ("background", *classes)))


FORMAT = LabelFormat("masks", _files, _read, _write)
