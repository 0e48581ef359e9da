# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Pictures that are dropped on the page: received part by part beside the folder's own, in place only once whole."""

from __future__ import annotations

import shutil
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from anomalib_aoissl.data.errors import DatasetError
from anomalib_aoissl.data.files import put_in_place, temporary_file

from .folder import LabelFolder
from .problems import Problem, unwritable


class Arrivals:
    """Where dropped pictures are received, and those on which an exported model is tried.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: LabelFolder) -> None:
        self.folder = folder
        self._received, self._trials = folder.own / "received", folder.own / "trial"
        self._lock = threading.Lock()

    def clean(self) -> None:
        """Remove what an earlier program received in part, and the pictures of its trials."""
        for path in (self._received, self._trials):
            shutil.rmtree(path, ignore_errors=True)

    @contextmanager
    def receiving(self, name: str) -> Iterator[Path]:
        """Give an empty file that a picture is written to; after the block it is gone, unless it was put in place.

        Raises:
            Problem: If the name is none of a picture, or the file cannot be written.
        """
        self.folder.check_name(name)
        try:
            with temporary_file(self.folder.inside(self._received / name)) as temporary:
                yield temporary
        except OSError as error:
            raise unwritable(error, name) from error

    def take(self, received: Path, name: str) -> Path:
        """Put a received picture into the folder, and return where it is.

        Raises:
            Problem: If it is no picture, or one of this name is there.
        """
        _check_picture(received, name)
        with self._lock:  # of two of one name, the second is told
            path = self.folder.new_file(name)
            path.parent.mkdir(exist_ok=True)
            put_in_place(received, path)
        return path

    def take_for_trial(self, received: Path, name: str, who: str) -> Path:
        """Put a received picture beside the others of a tab's trial, and return where it is.

        Raises:
            Problem: If it is no picture.
        """
        _check_picture(received, name)
        path = self.folder.inside(self._trial(who) / name)
        path.parent.mkdir(parents=True, exist_ok=True)
        put_in_place(received, path)
        return path

    def end_trial(self, who: str) -> None:
        """Remove the pictures of a tab's trial."""
        shutil.rmtree(self._trial(who), ignore_errors=True)

    def _trial(self, who: str) -> Path:
        """Return the folder of a tab's trial; the tab's name comes from outside and is no path."""
        return self._trials / f"{zlib.crc32(who.encode()):08x}"


def _check_picture(path: Path, name: str) -> None:
    """Validate that a file can be read as a picture.

    Raises:
        Problem: If it cannot; it says why, with the name that the picture has on the page.
    """
    from anomalib_aoissl.data.reading import read_image

    try:
        read_image(path)
    except DatasetError as error:
        reason = str(error).partition(": ")[2] or str(error)
        msg = f"{name}: {reason}"
        raise Problem(msg) from error
