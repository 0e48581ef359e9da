# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What a folder holds: its files through links, without what other programs keep beside a user's own."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..errors import DatasetError
from ..reading import IMAGE_SUFFIXES

logger = logging.getLogger(__name__)

_HIDDEN = (".", "@")  # .ipynb_checkpoints, .@__thumb, ._001.png, @eaDir
_OTHER_PROGRAMS = {
    "#recycle", "#snapshot", "$recycle.bin", "__macosx", "__pycache__", "lost+found", "network trash folder",
    "system volume information", "thumbnails", "thumbs",
}  # fmt: skip
_SYSTEM_FILES = {"thumbs.db", "desktop.ini", "icon\r"}
_SHOWN = 5


def say(what: str, names: Iterable[object]) -> None:
    """Log one line on what is unusual in a folder, with the first names; nothing where there are none."""
    found = [str(name) for name in names]
    if found:
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        logger.warning("%d %s: %s%s.", len(found), what, ", ".join(found[:_SHOWN]), more)


def image_files(folder: Path) -> list[Path]:
    """Return the image files below the folder, sorted; linked folders are followed, each once.

    Raises:
        DatasetError: If the folder is missing or holds no image.
    """
    if not folder.is_dir():
        given = "is no folder" if folder.exists() else "does not exist"
        msg = f"{folder}: the image folder {given}.{_where_images_lie(folder.parent)}"
        raise DatasetError(msg)
    files = list(files_below(folder))
    images = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        msg = f"{folder}: holds no image ({', '.join(IMAGE_SUFFIXES)})."
        raise DatasetError(msg)
    others = [path.name for path in files if path.suffix.lower() not in IMAGE_SUFFIXES]
    say(f"files in {folder} are left out, being no pictures that are read ({', '.join(IMAGE_SUFFIXES)})", others)
    return images


def _where_images_lie(folder: Path) -> str:
    """Return what to do where a folder holds images itself, with a space before it; else nothing."""
    images = sum(path.suffix.lower() in IMAGE_SUFFIXES for path in folder.iterdir()) if folder.is_dir() else 0
    if not images:
        return ""
    exported = f" Or train on a dataset below {folder / 'export'}." if (folder / "export").is_dir() else ""
    return f" {folder} holds {images} images itself: move them into that folder.{exported}"


def files_below(folder: Path) -> list[Path]:
    """Return the files below the folder, sorted, without what is hidden or of another program."""
    visited: set[str] = set()
    left_out: list[Path] = []
    files = sorted(_walk(folder, visited, left_out))
    say(f"folders or files in {folder} are left out (hidden, of another program, or linked twice)", left_out)
    return files


def _walk(folder: Path, visited: set[str], left_out: list[Path]) -> Iterator[Path]:
    """Yield the files below a folder; ends where links go round in a circle."""
    real = os.path.realpath(folder)
    if real in visited:
        left_out.append(folder)
        return
    visited.add(real)
    for path in sorted(folder.iterdir()):
        if _is_foreign(path.name):
            if path.is_dir() or path.suffix.lower() in IMAGE_SUFFIXES:
                left_out.append(path)
        elif path.is_dir():
            yield from _walk(path, visited, left_out)
        elif path.is_file():
            yield path
        elif path.is_symlink():
            msg = f"{path}: is a link to {path.readlink()}, which does not exist. Mend or remove it."
            raise DatasetError(msg)


def _is_foreign(name: str) -> bool:
    """Tell whether a name is hidden, or one that other programs and systems give."""
    return name.startswith(_HIDDEN) or name.lower() in _OTHER_PROGRAMS | _SYSTEM_FILES
