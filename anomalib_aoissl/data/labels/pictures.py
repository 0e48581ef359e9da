# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Finds the pictures that label files name: in whatever folder they lie, and however their name was changed."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from anomalib_aoissl.data.describing.file_format import FileFormat
from anomalib_aoissl.data.errors import DatasetError
from anomalib_aoissl.data.finding.folders import files_below
from anomalib_aoissl.data.reading import IMAGE_SUFFIXES

CHECK_NAME = "labels_check.png"
"""What the command writes beside the folders, and never reads."""

_MASK_FOLDERS = {"masks", "segmentationclass", "segmentationobject", "gtfine", "gtcoarse"}
_SPLITS = {
    "train": "train", "obj_train_data": "train", "val": "val", "valid": "val", "validation": "val",
    "obj_valid_data": "val", "test": "test", "obj_test_data": "test",
}  # fmt: skip
_LABEL_FOLDERS = {"annotations", "json", "labels"}
_LAYOUT = {
    "images", "img", "imgs", "jpegimages", "leftimg8bit", "imgsfine", "data", "default", "upload",
    "unlabelled", *_SPLITS,
}  # fmt: skip
_SUFFIXES = {*IMAGE_SUFFIXES, ".gif", ".jfif", ".webp", ".json", ".xml", ".txt"}  # of what a label file may name
_UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-")  # Label Studio puts it before the name of an uploaded file


class Pictures:
    """The pictures below some folders.

    Args:
        roots: The folders; those of masks in them are left out.
        file_format: How the files of an item are named.
    """

    def __init__(self, roots: Sequence[Path], file_format: FileFormat) -> None:
        self.file_format = file_format
        self._roots: dict[Path, Path] = {}
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        for root in roots:
            if not root.is_dir():
                msg = f"{root}: the folder of the pictures does not exist."
                raise DatasetError(msg)
            for path in files_below(root):
                folders = {part.lower() for part in path.relative_to(root).parts[:-1]}
                if path.suffix.lower() in IMAGE_SUFFIXES and not folders & _MASK_FOLDERS and path.name != CHECK_NAME:
                    self._add(path, root)

    def _add(self, path: Path, root: Path) -> None:
        self._roots[path] = root
        for key in {path.name.lower(), path.stem.lower()}:
            self._by_name[key].append(path)

    def __len__(self) -> int:
        return len(self._roots)

    def find(self, name: str) -> Path | None:
        """Return the picture that a label file calls so; None where there is none.

        Its file name decides, and its folders where several have that name: the path from the export's folder, or from
        its folder of pictures, wins. A suffix may be missing.

        Raises:
            DatasetError: If several pictures fit equally well.
        """
        given = PurePosixPath(name.replace("\\", "/"))
        first_channel = [f"{given.name}{suffix}" for suffix in self.file_format.lighting_channels[:1]]
        stem = given.stem if given.suffix.lower() in _SUFFIXES else given.name  # "unit_1.2" may be without a suffix
        for last in (given.name, *first_channel, stem, _UPLOAD_PREFIX.sub("", given.name)):
            found = self._by_name.get(last.lower(), [])
            if found:
                return self._nearest(found, given)
        return None

    def _nearest(self, found: Sequence[Path], given: PurePosixPath) -> Path:
        """Return the one whose folders are those of the given name: all of them, or those from the last one on."""
        for exact in (self._below(found, given, whole=True), self._below(found, given, whole=False)):
            if len(exact) == 1:
                return exact[0]
        agreeing = {path: _agreeing(_of_both(path.parent.parts), _of_both(given.parent.parts)) for path in found}
        most = max(agreeing.values())
        best = [path for path, count in agreeing.items() if count == most]
        if len(best) > 1:
            msg = (
                f"{best[0]}: has the name of {best[1]}, so that labels of {given} could be of both. Rename one of them."
            )
            raise DatasetError(msg)
        return best[0]

    def same_folders(self, path: Path, name: str) -> bool | None:
        """Tell whether a picture lies in the folders that a label file names; None where one of them has none.

        They are the same where the last one is, or where one of both has all folders of the other in their order. Those
        of a format's layout do not count.
        """
        own = path.relative_to(self._roots[path]).parts[:-1]
        mine, theirs = (_own_folders(parts) for parts in (own, PurePosixPath(name.replace("\\", "/")).parts[:-1]))
        if not mine or not theirs:
            return None
        return mine[-1] == theirs[-1] or _in_order(mine, theirs) or _in_order(theirs, mine)

    def _below(self, found: Sequence[Path], given: PurePosixPath, *, whole: bool) -> list[Path]:
        """Return those whose folders below the root, or below the folders of the tool's layout, are the given ones."""
        names = {path: PurePosixPath(path.relative_to(self._roots[path]).as_posix()) for path in found}
        below = {path: name if whole else _without_layout(name) for path, name in names.items()}
        return [path for path, name in below.items() if name.parent == given.parent]

    def items(self) -> list[Path]:
        """Return the first file of each item, sorted."""
        channels = self.file_format.lighting_channels
        return sorted(path for path in self._roots if not channels or path.stem.endswith(channels[0]))

    def first_file(self, path: Path) -> Path:
        """Return the first file of the item of a picture; the picture itself where a lighting channel is missing."""
        try:
            return self.file_format.files(path)[0]
        except DatasetError:
            return path

    def split(self, path: Path) -> str:
        """Return the split that a picture's folders name, train, val or test; nothing where they name none."""
        folders = (part.lower() for part in path.relative_to(self._roots[path]).parts[:-1])
        return next((_SPLITS[folder] for folder in folders if folder in _SPLITS), "")

    def leave_out_unreadable(self) -> list[str]:
        """Take out the items that cannot be read or lack a lighting channel, and return what is wrong with each."""
        channels, faults = self.file_format.lighting_channels, []
        for path in list(self._roots):
            if channels and not path.stem.endswith(channels):
                continue
            try:
                files = self.file_format.files(path)
                if path == files[0]:
                    self.file_format.read_files(files)
            except DatasetError as error:
                faults.append(str(error))
                self._leave_out(path)
        return faults

    def _leave_out(self, path: Path) -> None:
        """Forget a picture."""
        del self._roots[path]
        for key in {path.name.lower(), path.stem.lower()}:
            self._by_name[key].remove(path)

    def targets(self, paths: Iterable[Path]) -> dict[Path, PurePosixPath]:
        """Return the name of each picture below an images folder: its own, without the folders of the tool's layout.

        Pictures that would have one name keep all their folders.
        """
        whole = {path: PurePosixPath(path.relative_to(self._roots[path]).as_posix()) for path in paths}
        short = {path: _without_layout(name) for path, name in whole.items()}
        counts = Counter(str(name.with_suffix("")) for name in short.values())
        return {path: name if counts[str(name.with_suffix(""))] == 1 else whole[path] for path, name in short.items()}


def _agreeing(folders: Sequence[str], given: Sequence[str]) -> int:
    """Return how many folders are equal, from the last one on."""
    count = 0
    for mine, theirs in zip(reversed(folders), reversed(given), strict=False):
        if mine.lower() != theirs.lower():
            break
        count += 1
    return count


def _of_both(folders: Sequence[str]) -> list[str]:
    """Return the folders that a label file and its picture have in common: train/labels/a is of train/images/a."""
    return [folder for folder in folders if folder.lower() not in {"images", "labels"}]


def _own_folders(parts: Sequence[str]) -> list[str]:
    """Return the folders that are none of a format's layout, in lower case."""
    folders = [part.lower() for part in parts]
    return [part for part in folders if part not in _LAYOUT | _MASK_FOLDERS | _LABEL_FOLDERS | {"/", ".", ".."}]


def _in_order(few: Sequence[str], many: Sequence[str]) -> bool:
    """Tell whether all of the few are among the many, in their order."""
    left = iter(many)
    return all(part in left for part in few)


def _without_layout(name: PurePosixPath) -> PurePosixPath:
    """Return a path without the folders that the layout of a format gives every picture."""
    parts = name.parts
    while len(parts) > 1 and parts[0].lower() in _LAYOUT:
        parts = parts[1:]
    return PurePosixPath(*parts)
