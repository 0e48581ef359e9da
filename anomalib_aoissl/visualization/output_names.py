# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Names of what is written for each picture: they mirror the input's folders, and no two pictures share one."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from anomalib_aoissl.data.describing.file_format import FileFormat
from anomalib_aoissl.data.finding.splitting import SPLIT_NAMES


class OutputNames:
    """The name of each picture's outputs, a relative path that ends with .png.

    A picture's output has its stem; pictures of one stem in one folder, such as u1.png and u1.jpg, keep their suffix
    in it (u1.png.png, u1.jpg.png). The folders of a dataset's layout, images/ and the split's, are left out.

    Args:
        folder: Folder that the names are relative to; the folder of all pictures where it is None or not theirs.
        paths: The pictures, as far as they are known beforehand.
        file_format: How the files of an item are named.
        dataset: Whether the folder is a dataset's, with its layout.
    """

    def __init__(
        self, folder: str | Path | None, paths: Iterable[str], file_format: FileFormat, *, dataset: bool = False
    ) -> None:
        self._file_format, self._dataset = file_format, dataset
        listed = list(dict.fromkeys(paths))
        if listed and not all(is_below(path, folder) for path in listed):
            folder = os.path.commonpath([Path(_absolute(path)).parent for path in listed])
        self._folder = folder
        self._names = self._unique(listed)

    def __call__(self, path: str | None) -> Path:
        """Return the name of a picture's outputs; one that was not known beforehand gets one that is free."""
        if path is not None and path in self._names:
            return self._names[path]
        taken = set(self._names.values())
        candidates = [Path("image.png")] if path is None else self._candidates(path)
        last = candidates[-1]
        candidates += [last.with_name(f"{last.stem}_{number}.png") for number in range(2, len(taken) + 3)]
        name = next(name for name in candidates if name not in taken)
        self._names[f"\0{len(taken)}" if path is None else path] = name
        return name

    def _unique(self, paths: Sequence[str]) -> dict[str, Path]:
        """Return a name of its own for each path: the first of its candidates that no other path has."""
        candidates = {path: self._candidates(path) for path in paths}
        while True:
            counts = Counter(names[0] for names in candidates.values())
            shared = [path for path, names in candidates.items() if counts[names[0]] > 1 and len(names) > 1]
            if not shared:
                return {path: names[0] for path, names in candidates.items()}
            candidates.update({path: candidates[path][1:] for path in shared})

    def _candidates(self, path: str) -> list[Path]:
        """Return the names that a picture may have: with its stem, its whole name, and all of its folders."""
        whole = below(path, self._folder)
        relative = in_dataset(whole) if self._dataset else whole
        short = relative.with_name(f"{self._file_format.stem(path)}.png")
        return [short, relative.with_name(f"{relative.name}.png"), whole.with_name(f"{whole.name}.png")]


def is_below(path: str | Path, folder: str | Path | None) -> bool:
    """Tell whether a path lies in the folder or below it; links are not followed."""
    return folder is not None and Path(_absolute(path)).is_relative_to(_absolute(folder))


def below(path: str | Path, folder: str | Path | None) -> Path:
    """Return the path relative to the folder, else its own name; links are not followed."""
    absolute = Path(_absolute(path))
    if folder is None or not is_below(path, folder):
        return Path(absolute.name)
    return absolute.relative_to(_absolute(folder))


def in_dataset(relative: Path) -> Path:
    """Return a path of a dataset without the folders of its layout, images/ and the split's."""
    parts = relative.parts
    if len(parts) > 2 and parts[0] in SPLIT_NAMES and parts[1] == "images":
        return Path(*parts[2:])
    return Path(*parts[1:]) if len(parts) > 1 and parts[0] == "images" else relative


def _absolute(path: str | Path) -> str:
    """Return the absolute path; links stay as they are, or pictures that are links would leave their dataset."""
    return os.path.abspath(path)  # noqa: PTH100 - Path.resolve follows links
