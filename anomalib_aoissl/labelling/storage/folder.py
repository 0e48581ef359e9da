# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The folder that is labelled: its pictures, where their masks lie, and that nothing leads out of it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from anomalib_aoissl.data.describing.file_format import FileFormat
from anomalib_aoissl.data.reading import IMAGE_SUFFIXES

from .problems import Problem

OWN = ".labelling"
"""Sub-folder with what the page itself keeps: history, cached tokens, the session."""

_NOT_PICTURES = {"masks", "export", "results", "exported"}
_LONGEST_NAME = 200


@dataclass(frozen=True)
class Picture:
    """An item to label.

    Attributes:
        name: Path below the folder of pictures without suffix and lighting channel.
        files: One for each lighting channel.
        version: Changes with the files.
    """

    name: str
    files: tuple[Path, ...]
    version: str


class LabelFolder:
    """Pictures and masks of one folder, found by name.

    Args:
        root: The folder; pictures lie in its ``images/``, or in itself.
        file_format: Lighting channels, and the bits of a 16-bit file.

    Raises:
        ValueError: If it is no folder, or nothing can be written to it.
    """

    def __init__(self, root: Path | str, file_format: FileFormat | None = None) -> None:
        self.root = Path(root).resolve()
        self.file_format = file_format or FileFormat()
        if not self.root.is_dir():
            what = "is a file, not a folder" if self.root.exists() else "the folder does not exist"
            msg = f"{root}: {what}. Give the folder of your pictures (an empty one too)."
            raise ValueError(msg)
        _check_writable(self.root)
        self.faults: list[str] = []
        self._pictures: dict[str, Picture] = {}
        self.scan()

    @property
    def image_dir(self) -> Path:
        """Folder of the pictures: ``images/``, or the folder itself where it holds pictures."""
        inner = self.root / "images"
        return self.root if not inner.is_dir() and any(_picture_files(self.root)) else inner

    @property
    def own(self) -> Path:
        """Folder of what the page keeps."""
        return self.root / OWN

    @property
    def pictures(self) -> list[Picture]:
        """The pictures, sorted by name, as of the last scan."""
        return list(self._pictures.values())

    def scan(self) -> bool:
        """Look for pictures again; tell whether any came, went or changed."""
        before, self.faults = self._pictures, []
        self._pictures = dict(sorted(self._found().items()))
        return before != self._pictures

    def picture(self, name: str) -> Picture:
        """Return a picture by its name.

        Raises:
            Problem: If there is none of this name, or its file is gone.
        """
        found = self._pictures.get(name)
        if found is None:
            msg = f"There is no picture {name!r} in {self.root.name}."
            raise Problem(msg, HTTPStatus.NOT_FOUND)
        version = _version(found.files)
        if version is None:
            msg = f"{name}: the file is gone. Put it back, or go on with another picture; its mask is kept."
            raise Problem(
                msg,
                HTTPStatus.GONE,
            )
        return found if version == found.version else self._changed(found, version)

    def mask_path(self, name: str) -> Path:
        """Return where a picture's mask lies, or is to be written.

        Raises:
            Problem: If a link leads out of the folder.
        """
        masks = self.root / "masks"
        old = next((p for s in (".bmp", ".tif", ".tiff") if (p := masks / f"{name}{s}").is_file()), None)
        path = old if old is not None and not (masks / f"{name}.png").exists() else masks / f"{name}.png"
        return self.inside(path)

    def inside(self, path: Path) -> Path:
        """Return the path where neither it nor its folders lead out of the folder.

        Raises:
            Problem: If they do.
        """
        if not path.resolve().is_relative_to(self.root):
            msg = f"{path.name}: lies outside of {self.root}, through a link. It is not touched."
            raise Problem(msg, 403)
        return path

    @staticmethod
    def check_name(name: str) -> None:
        """Validate that a name is one of a picture's file, without folders.

        Raises:
            Problem: If it is not.
        """
        plain = Path(name.replace("\\", "/")).name
        bad = not plain or plain.startswith((".", "@")) or len(os.fsencode(plain)) > _LONGEST_NAME
        if bad or plain != name or not plain.isprintable() or Path(plain).suffix.lower() not in IMAGE_SUFFIXES:
            msg = f"{name!r}: is no picture's name. Drop {', '.join(IMAGE_SUFFIXES)}."
            raise Problem(msg)

    def new_file(self, name: str) -> Path:
        """Return where a picture that was dropped on the page is written.

        Raises:
            Problem: If its name is none of a picture, or is there already.
        """
        self.check_name(name)
        path = self.inside(self.image_dir / name)
        suffixes = {path.suffix, *IMAGE_SUFFIXES, *(suffix.upper() for suffix in IMAGE_SUFFIXES)}
        known = path.stem in self._pictures and path.parent == self._pictures[path.stem].files[0].parent
        if known or any(path.with_suffix(suffix).exists() for suffix in suffixes):  # each would get the other's mask
            msg = f"{name}: is in the folder already. Give the file another name."
            raise Problem(msg, HTTPStatus.CONFLICT)
        return path

    def _changed(self, picture: Picture, version: str) -> Picture:
        """Return a picture whose file has changed since the scan, and remember it."""
        self._pictures[picture.name] = Picture(picture.name, picture.files, version)
        return self._pictures[picture.name]

    def _found(self) -> dict[str, Picture]:
        """Return the pictures by name; what cannot be one is put into the faults."""
        lights, folder = self.file_format.illuminations, self.image_dir
        groups: dict[str, dict[str, Path]] = {}
        for path in _picture_files(folder) if folder == self.root else _below(folder, self.root):
            stem = path.relative_to(folder).with_suffix("").as_posix()
            light = next((suffix for suffix in lights if stem.endswith(suffix)), "")
            if lights and not light:
                continue
            files = groups.setdefault(stem.removesuffix(light) if light else stem, {})
            if light in files:
                self.faults.append(f"{path.name}: has the same name as {files[light].name}; only the first is shown.")
            files.setdefault(light, path)
        found: dict[str, Picture] = {}
        for name, files in groups.items():
            missing = [light for light in lights if light not in files]
            paths = tuple(files[light] for light in lights or ("",)) if not missing else ()
            version = _version(paths) if paths else None
            if missing:
                self.faults.append(f"{name}: the lighting channel {missing[0]} is missing.")
            elif version is not None:
                found[name] = Picture(name, paths, version)
        return found


def file_version(path: Path) -> str:
    """Return what changes whenever a file is written; "0" where there is none."""
    try:
        status = path.stat()
    except OSError:
        return "0"
    return f"{status.st_mtime_ns:x}.{status.st_size:x}.{status.st_ino:x}"


def _version(paths: tuple[Path, ...]) -> str | None:
    """Return what changes with any of the files; None where one is gone."""
    versions = [file_version(path) for path in paths]
    return None if "0" in versions else "-".join(versions)


def _picture_files(folder: Path) -> Iterator[Path]:
    """Give the pictures that lie in a folder itself, links left out, sorted."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        good = not entry.name.startswith((".", "@")) and Path(entry.name).suffix.lower() in IMAGE_SUFFIXES
        if good and entry.is_file(follow_symlinks=False):
            yield Path(entry.path)


def _below(folder: Path, root: Path) -> Iterator[Path]:
    """Give the pictures below a folder, no links followed that lead elsewhere."""
    if not folder.is_dir() or not folder.resolve().is_relative_to(root):
        return
    for place, folders, _ in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "@")) and name not in _NOT_PICTURES)
        yield from _picture_files(Path(place))


def _check_writable(root: Path) -> None:
    """Validate that files can be written to a folder.

    Raises:
        ValueError: If they cannot.
    """
    try:
        with tempfile.TemporaryFile(dir=root):
            pass
    except OSError as error:
        msg = f"{root}: cannot be written to ({error.strerror}), so that no label could be saved. Change its "
        msg += "permissions, or label a copy."
        raise ValueError(msg) from error
