# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Labels of an export to a folder of pictures and masks, or to another format: the source stays as it is."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path, PurePosixPath

import numpy as np

from anomalib_aoissl.data.describing.description import DESCRIPTION_NAME
from anomalib_aoissl.data.errors import DatasetError
from anomalib_aoissl.data.files import whole_folder, write_text
from anomalib_aoissl.data.reading import image_size, orientation_of, turn_shows_in_size, turned

from .content import LabelledPicture, LabelSet, MaskedImage, Shape
from .mapping import all_left_out, map_classes, remapped
from .shapes.rasterizing import OnTop, rasterized
from .source import LabelFormat, Source

_Name = Callable[[LabelledPicture], str]

_SHOWN, _KEPT = 5, 3
_IMAGES, _UNLABELLED = "images", "unlabelled"
_MAPPED, _DRAWN = "--map leaves all of their labels out", "none of their shapes has a pixel"
_REMEDY = {
    _MAPPED: "Keep a label that they show.",
    _DRAWN: "Are the coordinates in the unit of the format? YOLO has shares of the picture, COCO px.",
}


@dataclass(frozen=True)
class Choices:
    """What a user decides on a conversion.

    Attributes:
        renamed: New names of labels; see `map_classes`.
        classes: The class names in the order of their indices; None for that of the export.
        on_top: Which of two overlapping shapes is on top; see `rasterizing`.
        empty_is_background: Whether a picture without a shape, or with none that ``renamed`` keeps, is free of parts;
            else it counts as not labelled.
        device_pattern: Regular expression searched in a picture's name; its first group names the device.
        keep_splits: Whether pictures of the export's folders train, val and test stay in such folders; for masks alone.
    """

    renamed: Mapping[str, str] = field(default_factory=dict)
    classes: Sequence[str] | None = None
    on_top: OnTop = "file"
    empty_is_background: bool = False
    device_pattern: str | None = None
    keep_splits: bool = False


@dataclass
class Report:
    """What a conversion found.

    Attributes:
        format: Name of the format that was read.
        class_names: Background first.
        pixels: ``[256]``, px of each mask value in all masks.
        pictures_of_class: ``[256]``, masks that hold each value.
        devices: Labelled pictures of each device.
        labelled: Pictures with a mask.
        unlabelled: Pictures without, also those whose shapes were all left out.
        misfits: Masks of the pictures whose labels are of another size, three at most; they are not converted.
        notes: A line on each thing that was left out.
    """

    format: str
    class_names: tuple[str, ...]
    pixels: np.ndarray = field(default_factory=lambda: np.zeros(256, dtype=np.int64))
    pictures_of_class: np.ndarray = field(default_factory=lambda: np.zeros(256, dtype=np.int64))
    devices: Counter[str] = field(default_factory=Counter)
    labelled: int = 0
    unlabelled: int = 0
    misfits: dict[Path, np.ndarray] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


Look = Callable[[Path, np.ndarray], None]
"""Is shown each picture and its mask ``[H, W]``."""


def convert(
    labels: LabelSet,
    source: Source,
    target: Path,
    form: LabelFormat,
    choices: Choices | None = None,
    look: Look | None = None,
) -> Report:
    """Write pictures and labels into a new folder, whole or not at all, and return what was found.

    Pictures are copied below ``images/``, those without labels below ``unlabelled/``; where splits are kept, below
    ``train/images/`` and ``unlabelled/train/``. Devices and lighting channels
    that are known go into dataset.json.

    Raises:
        DatasetError: If the target exists, no picture is found, two labels are of one picture, a name of a class is
            wrong, no shape of any picture is left, or a file cannot be read.
        OSError: If the target cannot be written.
    """
    choices = choices or Choices()
    check_target(target, source)
    run = _Run(labels, source, choices, look)
    with whole_folder(target) as folder:
        form.write(folder, run.masked(folder), run.report.class_names[1:])  # type: ignore[misc]
        for path, name in run.unlabelled.items():
            _copy(source, path, folder / _UNLABELLED / name)
        _write_description(folder, run, source)
    return run.report


def check_target(target: Path, source: Source) -> None:
    """Validate the folder to write.

    Raises:
        DatasetError: If it exists and is not empty, or lies in the export.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        msg = f"{target}: exists already. Give the name of a new folder; nothing is overwritten."
        raise DatasetError(msg)
    if source.path.is_dir() and source.root.resolve() in target.resolve().parents:
        msg = f"{target}: lies in the export. Give a folder outside of {source.root}, which stays as it is."
        raise DatasetError(msg)


class _Run:
    """One conversion: which picture each label is of, and what becomes of it."""

    def __init__(self, labels: LabelSet, source: Source, choices: Choices, look: Look | None) -> None:
        self._labels, self._source, self._choices, self._look = labels, source, choices, look
        names, self._lookup = map_classes(labels.classes, choices.renamed, choices.classes)
        self.report = Report(labels.format, names, notes=list(labels.notes))
        self.groups: dict[str, str] = {}
        found = self._found()
        labelled = [path for path, image in found.items() if image.labelled or choices.empty_is_background]
        free = [path for path in source.pictures.items() if path not in set(labelled)]
        self._splits = self._checked_splits(labelled) if choices.keep_splits else {}
        targets = self._targets([*labelled, *free])
        self._todo = [(path, found[path], targets[path]) for path in labelled]
        self._check_names()
        self.unlabelled = {path: self._split(path) / targets[path] for path in free}
        self._stored: list[LabelledPicture] = []
        self._untold: list[LabelledPicture] = []
        self._outside: list[tuple[Path, str]] = []
        self._vanished: dict[str, list[LabelledPicture]] = {_DRAWN: [], _MAPPED: []}
        self._overlaps: Counter[tuple[str, str]] = Counter()

    def _found(self) -> dict[Path, LabelledPicture]:
        """Return the labels of each item that exists, by its first file; those of its lighting channels are joined."""
        found: dict[Path, LabelledPicture] = {}
        missing = []
        for image, path in self._named():
            if path is None:
                missing.append(image)
            elif path in found:
                msg = f"{image.source}: labels {path.name} a second time, after {found[path].source.name}. Remove one."
                raise DatasetError(msg)
            else:
                found[path] = image
        if missing and not found:
            msg = (
                f"{missing[0].source}: none of its {len(missing)} pictures is found, such as {missing[0].name}. Name "
                "their folder with --images."
            )
            raise DatasetError(msg)
        self._note("pictures named in {0} are missing and left out", missing)
        items: dict[Path, LabelledPicture] = {}
        for path, image in found.items():
            first = self._source.pictures.first_file(path)
            items[first] = items[first].joined(image) if first in items else image
        return items

    def _named(self) -> list[tuple[LabelledPicture, Path | None]]:
        """Return the picture that each of the labels names; None where there is none.

        Where some lie in the folders that are named, so must all: one of the same name elsewhere is another. Where none
        does, they were moved since, and the names alone decide.
        """
        pictures = self._source.pictures
        named = [(image, pictures.find(image.name)) for image in self._labels.images]
        same = [None if path is None else pictures.same_folders(path, image.name) for image, path in named]
        away = {image.name: path for (image, path), are in zip(named, same, strict=True) if are is False}
        what, word = "pictures lie in other folders than {0} names, and are found by their file names alone", "is"
        if True in same:
            named = [(image, None if are is False else path) for (image, path), are in zip(named, same, strict=True)]
            what, word = "pictures of {0} are missing where it names them, one of another folder is not taken", "is not"
        moved = [image for image, _ in named if image.name in away]
        self._note(what, moved, lambda image: f"{image.name} {word} {away[image.name]}")
        return named

    def _checked_splits(self, labelled: Sequence[Path]) -> dict[Path, str]:
        """Return the split of each picture of the export.

        Raises:
            DatasetError: If a labelled picture is in none, or none is in train.
        """
        splits = {path: self._source.pictures.split(path) for path in [*labelled, *self._source.pictures.items()]}
        wrong = next((path for path in labelled if not splits[path]), None)
        if wrong is not None or "train" not in {splits[path] for path in labelled}:
            what = "none that is labelled lies in train" if wrong is None else f"{wrong.name} lies in none of them"
            msg = f"{self._source.path}: --keep_splits needs pictures in train, val and test; {what}. Leave it out."
            raise DatasetError(msg)
        return splits

    def _split(self, path: Path) -> PurePosixPath:
        """Return the folder of a picture's split; nothing where splits are not kept."""
        return PurePosixPath(self._splits.get(path, ""))

    def _targets(self, paths: Sequence[Path]) -> dict[Path, PurePosixPath]:
        """Return the name of each picture in its folder of pictures."""
        parts: dict[PurePosixPath, list[Path]] = {}
        for path in paths:
            parts.setdefault(self._split(path), []).append(path)
        return {path: name for part in parts.values() for path, name in self._source.pictures.targets(part).items()}

    def _item(self, name: PurePosixPath) -> PurePosixPath:
        """Return the name of an item, which its mask has, from that of its first file."""
        return name.with_name(self._source.pictures.file_format.stem(name.name))

    def _check_names(self) -> None:
        """Validate that no two labelled pictures would have one mask.

        Raises:
            DatasetError: If the names of two differ in their suffix only.
        """
        first: dict[PurePosixPath, Path] = {}
        for path, _, name in self._todo:
            other = first.setdefault(self._split(path) / self._item(name), path)
            if other is not path:
                msg = f"{path}: has the name of {other} but for the suffix, and one mask cannot be of both. Rename one."
                raise DatasetError(msg)

    def _note(self, what: str, things: Sequence[LabelledPicture], name: _Name = attrgetter("name")) -> None:
        """Add a line on some pictures, if there are any."""
        if things:
            listed, files = _listed([name(thing) for thing in things]), _files([thing.source for thing in things])
            self.report.notes.append(f"{len(things)} {what.format(files)}: {listed}")

    def masked(self, root: Path) -> Iterator[MaskedImage]:
        """Copy each labelled picture into the folder, and yield its mask.

        Those whose shapes all vanish are not labelled: as background, their parts would be learnt wrong.
        """
        misfits = []
        for path, image, name in self._todo:
            size = image_size(path)
            mask, vanished = self._mask(image, size)
            mask = self._upright(mask, image, path, size)
            if mask.shape != size:
                misfits.append(image)
                if len(self.report.misfits) < _KEPT:
                    self.report.misfits[path] = mask
                continue
            if vanished is not None:
                self._vanished[vanished].append(image)
                self.unlabelled[path] = self._split(path) / name
                continue
            _copy(self._source, path, root / self._split(path) / _IMAGES / name)
            item = self._item(name)
            device = self._device(image, item)
            self._count(mask, item, device)
            if self._look is not None:
                self._look(path, mask)
            yield MaskedImage(name.as_posix(), item.as_posix(), mask, device, self._splits.get(path, ""))
        self._note_sizes(misfits)
        self._summarize()

    def _note_sizes(self, misfits: Sequence[LabelledPicture]) -> None:
        """Add the lines on pictures whose size is not that of their labels, or does not tell which way they lie.

        Raises:
            DatasetError: If no picture has the size of its labels.
        """
        if misfits and len(misfits) == len(self._todo):
            path, mask = next(iter(self.report.misfits.items()))
            height, width = image_size(path)
            msg = (
                f"{self._source.path}: none of its {len(misfits)} pictures has the size of its labels, such as "
                f"{path.name} with {height}x{width} px (height x width) and labels of {mask.shape[0]}x{mask.shape[1]}. "
                "Give the pictures that were labelled."
            )
            raise DatasetError(msg)
        self._note("pictures have another size than their labels in {0} and are left out", misfits)
        self._note(
            "pictures are turned by their orientation tag, and their labels in {0} with them, which have the size of "
            "the picture as it is stored",
            self._stored,
        )
        self._note(
            "pictures are turned by their orientation tag, and the size of their labels in {0} does not tell whether "
            "they were drawn after it; they are taken to be. Look whether they lie on the pictures",
            self._untold,
        )

    def _upright(self, mask: np.ndarray, image: LabelledPicture, path: Path, size: tuple[int, int]) -> np.ndarray:
        """Return a mask as a viewer shows its picture, of the size (height, width).

        It is turned with the picture where its size says that it was drawn on the picture as it is stored.
        """
        tag, drawn = orientation_of(path), image.indices is None
        shows = turn_shows_in_size(tag, size)
        if shows and mask.shape == size[::-1]:
            self._stored.append(image)
            return np.ascontiguousarray(turned(mask, tag))
        told = tag == 1 or (shows and not (drawn and image.size is None))
        if not told and mask.any() and (drawn or orientation_of(image.source) != tag):  # a mask's own tag has turned it
            self._untold.append(image)
        return mask

    def _mask(self, image: LabelledPicture, size: tuple[int, int]) -> tuple[np.ndarray, str | None]:
        """Return the mask of a picture ``[H, W]``, and why all of its shapes vanish, if they do.

        It is of another size where the labels are of another.
        """
        mapped = None if self._choices.empty_is_background else _MAPPED
        if image.indices is not None:
            indices = image.indices()
            gone = all_left_out(indices, self._labels.classes, self._lookup)
            return remapped(indices, self._labels.classes, self._lookup), mapped if gone else None
        kept = [shape for shape in image.shapes if self._lookup[shape.label] is not None]
        shares, drawn = ([shape for shape in kept if _is_in_shares(shape) is told] for told in (True, False))
        mask, overlaps, empty = rasterized(drawn, self._lookup, image.size or size, self._choices.on_top)
        self._overlaps.update(overlaps)
        empty += shares
        self._outside += [(image.source, f"{shape.label} in {image.name}") for shape in empty]
        if kept:
            return mask, _DRAWN if len(empty) == len(kept) else None
        return mask, mapped if image.shapes else None

    def _device(self, image: LabelledPicture, item: PurePosixPath) -> str | None:
        """Return the device of an item; None where neither the labels, the pattern nor a folder say it."""
        if self._choices.device_pattern is not None:
            match = re.search(self._choices.device_pattern, item.as_posix())
            if match is None:
                msg = f"--device_pattern {self._choices.device_pattern!r} does not match the name {item.as_posix()!r}."
                raise DatasetError(msg)
            return match.group(match.re.groups and 1)
        return image.device

    def _count(self, mask: np.ndarray, item: PurePosixPath, device: str | None) -> None:
        """Add a mask to the report."""
        counts = np.bincount(mask.ravel(), minlength=256)
        self.report.pixels += counts
        self.report.pictures_of_class += counts > 0
        self.report.labelled += 1
        self.report.devices[device or (item.parts[0] if len(item.parts) > 1 else "unknown")] += 1
        if device is not None:
            self.groups[item.as_posix()] = device

    def _summarize(self) -> None:
        """Add the lines on overlaps, shapes outside and pictures without a shape, once all masks are made.

        Raises:
            DatasetError: If no picture keeps a shape.
        """
        if self._outside:
            files = _files([file for file, _ in self._outside])
            self.report.notes.append(
                f"{len(self._outside)} shapes of {files} have no pixel (outside of the picture, or thinner than one) "
                f"and are left out: {_listed([name for _, name in self._outside])}"
            )
        gone = {why: images for why, images in self._vanished.items() if images}
        if gone and sum(map(len, gone.values())) == len(self._todo):
            remedies = " ".join(_REMEDY[why] for why in gone)
            msg = f"{self._source.path}: labels none of its {len(self._todo)} pictures: {', '.join(gone)}. {remedies}"
            raise DatasetError(msg)
        for why, images in gone.items():
            self._note(f"pictures of {{0}} go to {_UNLABELLED}/, as {why}", images)
        self.report.unlabelled = len(self.unlabelled)
        counts = Counter(filter(None, (self._source.pictures.split(path) for path, _, _ in self._todo)))
        if len(counts) > 1 and not self._splits:
            listed = ", ".join(f"{split} {count}" for split, count in sorted(counts.items()))
            self.report.notes.append(
                f"the export's own splits ({listed} pictures) lie in one folder now and are split anew, so that its "
                "test pictures may be learnt. To keep them: "
                f"python -m anomalib_aoissl labels {self._source.path} NEW_FOLDER --keep_splits"
            )
        if self._overlaps:
            rule = "the later one of the file" if self._choices.on_top == "file" else "the smaller one"
            worst = [f"{top} over {low} {count:,} px" for (top, low), count in self._overlaps.most_common(3)]
            self.report.notes.append(
                f"{sum(self._overlaps.values()):,} px have two classes; on top is the higher z-order, then {rule}: "
                f"{', '.join(worst)}"
            )


def _listed(names: Sequence[str]) -> str:
    """Return the first names."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"


def _is_in_shares(shape: Shape) -> bool:
    """Tell whether a shape lies in the first pixel, as one does whose coordinates are shares of the picture, not px."""
    if not shape.rings:
        return False
    every = np.concatenate(shape.rings)
    return bool((every >= 0).all() and (every <= 1).all() and (every % 1).any())


def _files(paths: Sequence[Path]) -> str:
    """Return the one file, or how many there are and the first of them."""
    names = [str(path) for path in dict.fromkeys(paths)]
    return names[0] if len(names) == 1 else f"{len(names)} files ({_listed(names)})"


def _copy(source: Source, path: Path, target: Path) -> None:
    """Copy the files of an item beside the target's name."""
    for file in source.pictures.file_format.files(path):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target.with_name(file.name))


def _write_description(folder: Path, run: _Run, source: Source) -> None:
    """Write dataset.json where devices or lighting channels are known."""
    content = {"groups": run.groups, "lighting_channels": list(source.pictures.file_format.lighting_channels)}
    if any(content.values()):
        text = json.dumps({key: value for key, value in content.items() if value}, indent=1, ensure_ascii=False)
        write_text(folder / DESCRIPTION_NAME, text)
