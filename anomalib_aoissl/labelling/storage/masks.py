# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Masks of the page: read, changed region by region, written whole; an older page's changes are not taken."""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock

from anomalib_aoissl.data.describing.class_colours import write_class_index_png
from anomalib_aoissl.data.describing.description import DatasetDescription
from anomalib_aoissl.data.errors import DatasetError
from anomalib_aoissl.data.indices import IGNORE_INDEX
from anomalib_aoissl.data.reading import MASK_SUFFIXES, image_size

from .folder import LabelFolder
from .history import Change, History
from .in_memory import Held
from .listing import file_version
from .problems import Problem, StaleError, unwritable

_HELD = 150_000_000  # bytes of masks that stay in memory

Size = tuple[int, int]


@dataclass(frozen=True)
class Region:
    """A rectangle of a mask, px, and what is in it.

    Attributes:
        left: Its first column.
        top: Its first row.
        values: ``[H, W]`` uint8 class indices, 255 is unpainted.
    """

    left: int
    top: int
    values: np.ndarray

    @classmethod
    def unpacked(cls, rectangle: tuple[int, int, int, int], data: bytes) -> Region:
        """Return the region of (left, top, width, height) and its values, deflated row by row.

        Raises:
            Problem: If they do not fit each other.
        """
        left, top, width, height = rectangle
        if min(left, top) < 0 or min(width, height) < 1:
            msg = "A region must have a place in the picture and an area."
            raise Problem(msg)
        try:
            raw = zlib.decompressobj().decompress(data, width * height + 1)  # no more, whatever it claims to be
        except zlib.error as error:
            msg = f"A region's values cannot be unpacked: {error}."
            raise Problem(msg) from error
        if len(raw) != width * height:
            msg = f"A region of {width}x{height} px has {width * height} values, not {len(raw)}."
            raise Problem(msg)
        return cls(left, top, np.frombuffer(raw, np.uint8).reshape(height, width))

    @property
    def box(self) -> tuple[slice, slice]:
        """Rows and columns of the region."""
        height, width = self.values.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


class MaskStore:
    """The masks of a folder, with the history of each.

    Args:
        folder: The folder.
        describe: Gives the class names and how mask files are coded, as they are now.
    """

    def __init__(self, folder: LabelFolder, describe: Callable[[], DatasetDescription]) -> None:
        self.folder = folder
        self._describe = describe
        self._held: Held[np.ndarray] = Held(_HELD)
        self._lock = threading.RLock()
        folder.own.mkdir(exist_ok=True)
        self._between = FileLock(folder.own / "masks.lock")  # programs that label one folder

    @property
    def description(self) -> DatasetDescription:
        """Class names and coding of the masks."""
        return self._describe()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep the masks as they are during the block, for other threads and other programs."""
        with self._lock, self._between:
            yield

    def version(self, name: str) -> str:
        """Return what changes whenever the picture's mask is written; "0" where it has none."""
        return file_version(self.folder.mask_path(name))

    def versions(self) -> dict[str, str]:
        """Return the version of each mask that there is, by the name of its picture; in one look at the disk."""
        folder, found = self.folder.root / "masks", {}
        if folder.is_dir() and folder.resolve().is_relative_to(self.folder.root):
            for place, _, files in os.walk(folder):
                for file in files:
                    path = Path(place, file)
                    if path.suffix.lower() in MASK_SUFFIXES and not file.startswith("."):
                        found[path.relative_to(folder).with_suffix("").as_posix()] = file_version(path)
        return found

    def stored(self, name: str) -> np.ndarray:
        """Return the mask ``[H, W]`` in a file, also where its picture is not there, or of another size.

        Raises:
            Problem: If the file cannot be used.
        """
        try:
            return self.description.read_mask(self.folder.mask_path(name))
        except (DatasetError, OSError) as error:
            raise Problem(str(error)) from error

    def read(self, name: str) -> tuple[np.ndarray, str]:
        """Return a picture's mask ``[H, W]``, not to be changed, and its version; all unpainted where it has none.

        Raises:
            Problem: If the file cannot be used, such as one of another size.
        """
        with self._lock:
            path = self.folder.mask_path(name)
            version = file_version(path)
            mask = self._held.get(name, version)
            if mask is None:
                mask = self._read_file(name, path, version)
                self._held.put(name, version, mask, mask.nbytes)
            return mask, version

    def apply(self, name: str, region: Region, base: str, kind: str) -> str:
        """Write a region into a picture's mask, and return the new version.

        Args:
            name: The picture.
            region: What it is from now on.
            base: Version of the mask that the region was drawn on.
            kind: What was done, for the history.

        Raises:
            StaleError: If the mask is another one by now.
            Problem: If the region does not fit, or cannot be saved.
        """
        with self.locked():
            mask, version = self.read(name)
            if version != base:
                raise StaleError(name, version)
            self._check(region, mask.shape)
            change = Change(kind, region.left, region.top, mask[region.box].copy(), region.values)
            return self._write(name, mask, change)

    def step(self, name: str, back: bool) -> tuple[Change, str] | None:
        """Undo the last change of a picture, or redo the one undone last; None where there is none.

        Raises:
            Problem: If the mask has changed there since, or cannot be saved.
        """
        with self.locked():
            mask, _ = self.read(name)
            change = self._history(name).next(back)
            if change is None:
                return None
            box = Region(change.left, change.top, change.before).box
            if mask[box].shape != change.before.shape or not np.array_equal(mask[box], change.before):
                msg = "This cannot be undone any more: the mask was changed there by another program."
                raise Problem(msg, 409)
            return change, self._write(name, mask, change)

    def set_aside(self, name: str) -> Path:
        """Move a mask that cannot be used out of the way, and return where it is now."""
        path = self.folder.mask_path(self.folder.picture(name).name)  # of a picture only: "../images/a" is none
        with self.locked():
            target = self.folder.own / "set_aside" / f"{name}.{file_version(path)}{path.suffix}"
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                path.replace(target)
            except OSError as error:
                raise unwritable(error, f"The mask of {name}") from error
        return target

    def counts(self, name: str) -> np.ndarray:
        """Return how many pixels ``[256]`` each value of a picture's mask has."""
        return np.bincount(self.read(name)[0].ravel(), minlength=256)

    def _write(self, name: str, mask: np.ndarray, change: Change) -> str:
        """Write a mask with a change in it, and its history; return the new version."""
        path = self.folder.mask_path(name).with_suffix(".png")
        changed = mask.copy()
        changed[Region(change.left, change.top, change.after).box] = change.after
        try:
            write_mask(path, changed)
            remove_others(path)
        except OSError as error:
            raise unwritable(error, f"The mask of {name}") from error
        version = file_version(path)
        self._held.put(name, version, changed, changed.nbytes)
        self._history(name).append(change)
        return version

    def _read_file(self, name: str, path: Path, version: str) -> np.ndarray:
        """Return the mask in a file."""
        try:
            size = image_size(self.folder.picture(name).files[0])
            if version == "0":
                return np.full(size, IGNORE_INDEX, np.uint8)
            mask = self.description.read_mask(path)
        except (DatasetError, OSError) as error:
            raise Problem(str(error)) from error
        if mask.shape != size:
            msg = (
                f"{path.name}: the mask has {mask.shape[1]}x{mask.shape[0]} px (width x height), its picture "
                f"{size[1]}x{size[0]}. Mend the file, or set it aside and draw a new one."
            )
            raise Problem(msg)
        return mask

    def _check(self, region: Region, size: Size) -> None:
        """Validate that a region lies in a mask and holds classes."""
        rows, columns = region.box
        if rows.stop > size[0] or columns.stop > size[1]:
            msg = f"The region reaches beyond the picture of {size[1]}x{size[0]} px."
            raise Problem(msg)
        values = np.unique(region.values)
        number = len(self.description.classes)
        wrong = values[(values >= number) & (values != IGNORE_INDEX)]
        if len(wrong):
            msg = f"The class {wrong[0]} is not there any more. Load the page again."
            raise Problem(msg, 409)

    def _history(self, name: str) -> History:
        """Return the history of a picture's mask."""
        return History(self.folder.inside(self.folder.own / "history" / f"{name}.jsonl"))


def write_mask(path: Path, mask: np.ndarray) -> None:
    """Write a mask ``[H, W]`` uint8 as a palette PNG, whole or not at all, quickly."""
    write_class_index_png(path, mask, IGNORE_INDEX, compress_level=1)


def remove_others(path: Path) -> None:
    """Remove the files of other suffixes of a mask that is a PNG from now on: training takes one file alone."""
    for suffix in MASK_SUFFIXES:
        for other in (path.with_suffix(suffix), path.with_suffix(suffix.upper())):
            same = other == path or (path.exists() and other.exists() and other.samefile(path))  # .PNG on Windows
            if not same:
                other.unlink(missing_ok=True)
