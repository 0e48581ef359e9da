# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""An export of a labelling tool as it lies on the disk, and what a format is."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anomalib_aoissl.data.describing.description import DESCRIPTION_NAME
from anomalib_aoissl.data.describing.file_format import FileFormat
from anomalib_aoissl.data.errors import DatasetError
from anomalib_aoissl.data.finding.folders import files_below

from .content import LabelSet, MaskedImage
from .pictures import Pictures
from .texts import read_json

_SNIFFED = 20  # JSON files that are looked into to find the format
_OWN_FILES = {DESCRIPTION_NAME, "generator.json"}


class Source:
    """The files of an export, and the pictures that its labels name.

    Args:
        path: Folder of the export, or its one label file.
        images: Folder of the pictures where they are not in the export.
        file_format: How the files of an item are named.
        classes: Names of the classes, for formats that do not say them; with or without the background.

    Raises:
        DatasetError: If the path does not exist, is an archive, or holds no file.
    """

    def __init__(
        self,
        path: Path,
        images: Path | None = None,
        file_format: FileFormat | None = None,
        classes: Sequence[str] | None = None,
    ) -> None:
        if not path.exists():
            msg = f"{path}: does not exist. Give the folder that the labelling tool exported, or its label file."
            raise DatasetError(msg)
        if path.suffix.lower() in {".zip", ".tar", ".gz", ".7z"}:
            msg = f"{path}: is an archive. Unpack it, and give the folder."
            raise DatasetError(msg)
        self.path, self.classes = path, classes
        self.root = path if path.is_dir() else path.parent
        self.files = files_below(path) if path.is_dir() else [path]
        if not self.files:
            msg = f"{path}: is empty. Export the labels again."
            raise DatasetError(msg)
        self.pictures = Pictures([images] if images is not None else [self.root], file_format or FileFormat())
        self._parsed: OrderedDict[Path, Any] = OrderedDict()

    def named(self, *suffixes: str) -> list[Path]:
        """Return the files whose name ends so, without those of a dataset of ours."""
        return [path for path in self.files if path.name.lower().endswith(suffixes) and path.name not in _OWN_FILES]

    def json(self, path: Path) -> Any:
        """Return what a JSON file holds; the last few are kept."""
        if path not in self._parsed:
            self._parsed[path] = read_json(path)
            while len(self._parsed) > _SNIFFED:
                self._parsed.popitem(last=False)
        return self._parsed[path]

    def json_files(self, test: Callable[[Any], bool]) -> list[Path]:
        """Return all JSON files where one of the first of them passes the test, else none."""
        found = self.named(".json")
        return found if any(test(self.json(path)) for path in found[:_SNIFFED]) else []

    def passing_json_files(self, test: Callable[[Any], bool]) -> list[Path]:
        """Return those of `json_files` that pass the test themselves."""
        return [path for path in self.json_files(test) if test(self.json(path))]


@dataclass(frozen=True)
class LabelFormat:
    """A format of labels.

    Attributes:
        name: What it is called; ``--format`` takes its lower case where it can be written.
        files: Gives the label files of an export that is of this format, else none.
        read: Gives the labels in these files.
        write: Writes the masks of pictures into a folder that exists and holds the pictures below ``images/``; gets
            the class names without background. None where the format is only read.
    """

    name: str
    files: Callable[[Source], list[Path]]
    read: Callable[[Sequence[Path], Source], LabelSet]
    write: Callable[[Path, Iterable[MaskedImage], Sequence[str]], None] | None = None
