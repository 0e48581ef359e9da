# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The folder that is labelled: its pictures, where their masks lie, and that nothing leads out of it."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

from anomalib_aoissl.data.describing.file_format import FileFormat
from anomalib_aoissl.data.reading import IMAGE_SUFFIXES, MASK_SUFFIXES

from .listing import Listing, Picture, version_of
from .problems import Problem

OWN = ".labelling"
"""Sub-folder with what the page itself keeps: history, cached tokens, the session."""

_NOT_PICTURES = {"masks", "export", "results", "exported"}
_LONGEST_NAME = 200


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
        self._listing = Listing(self.root)
        self._arrived: list[Path] = []
        self._lock, self._scanning = threading.Lock(), threading.Lock()
        self.scan()

    @property
    def image_dir(self) -> Path:
        """Folder of the pictures: ``images/``, or the folder itself where it holds pictures."""
        if not self._listing.is_empty:
            return self._listing.folder
        inner = self.root / "images"
        return self.root if not inner.is_dir() and any(_picture_files(self.root)) else inner

    @property
    def own(self) -> Path:
        """Folder of what the page keeps."""
        return self.root / OWN

    @property
    def pictures(self) -> list[Picture]:
        """The pictures, sorted by name, as of the last scan."""
        return list(self._listing.pictures.values())

    @property
    def faults(self) -> list[str]:
        """What is wrong with files that are shown as no picture."""
        return self._listing.faults

    def scan(self) -> bool:
        """Look for pictures again; tell whether any came, went or changed, or is at fault."""
        with self._scanning:
            self._arrived = []
            inner = self.root / "images"
            here = [] if inner.is_dir() else list(_picture_files(self.root))
            files = here or _below(inner, self.root)
            found = Listing(self.root if here else inner, self.file_format.lighting_channels, files)
            with self._lock:
                for path in self._arrived:  # it may not have been there yet when its folder was looked through
                    if path.parent == found.folder:
                        found.add(path)
                before, self._listing = self._listing, found
            return (before.pictures, sorted(before.faults)) != (found.pictures, sorted(found.faults))

    def arrived(self, path: Path) -> str:
        """List a file that was put in place, without a look at others than those of its picture.

        Returns:
            The name of the picture that is complete with it; empty where another channel is missing.
        """
        with self._lock:
            if path.parent == self._listing.folder:
                self._arrived.append(path)
                return self._listing.add(path)
        self.scan()  # the folder was empty, and another program put pictures elsewhere
        return next((one.name for one in self.pictures if path in one.files), "")

    def picture(self, name: str) -> Picture:
        """Return a picture by its name.

        Raises:
            Problem: If there is none of this name, or its file is gone.
        """
        found = self._listing.pictures.get(name)
        if found is None:
            msg = f"There is no picture {name!r} in {self.root.name}."
            raise Problem(msg, HTTPStatus.NOT_FOUND)
        version = version_of(found.files)
        if version is None:
            msg = f"{name}: the file is gone. Put it back, or go on with another picture; its mask is kept."
            raise Problem(msg, HTTPStatus.GONE)
        if version != found.version:  # changed since the scan
            found = Picture(name, found.files, version)
            self._listing.replace(found)
        return found

    def mask_path(self, name: str) -> Path:
        """Return where a picture's mask lies, or is to be written.

        Raises:
            Problem: If a link leads out of the folder.
        """
        mask = self.root / "masks" / f"{name}.png"
        files = (mask.with_suffix(end) for suffix in MASK_SUFFIXES for end in (suffix, suffix.upper()))
        return self.inside(next((path for path in files if path.is_file()), mask))

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
            Problem: If its name is none of a picture, or of none of the lighting channels, or is there already.
        """
        self.check_name(name)
        plain, channels = Path(name), self.file_format.lighting_channels
        if not self._listing.has_channel(plain.stem):
            msg = f"{name}: was not taken. A picture of this folder is one file for each lighting channel, and this "
            msg += (
                f"name ends in none of {', '.join(channels)} (dataset.json). Name its files {plain.stem}{channels[0]}"
            )
            msg += f"{plain.suffix} and so on, and drop them together."
            raise Problem(msg)
        path = self.inside(self.image_dir / name)
        suffixes = {path.suffix, *IMAGE_SUFFIXES, *(suffix.upper() for suffix in IMAGE_SUFFIXES)}
        namesake = self._listing.pictures.get(path.stem)
        known = namesake is not None and path.parent == namesake.files[0].parent
        if known or any(path.with_suffix(suffix).exists() for suffix in suffixes):  # each would get the other's mask
            msg = f"{name}: is in the folder already. Give the file another name."
            raise Problem(msg, HTTPStatus.CONFLICT)
        return path


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
