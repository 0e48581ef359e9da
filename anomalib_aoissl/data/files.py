# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Files that are written whole or not at all, and kept through a loss of power."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from .full_disk import names_full_disk

_TEMPORARY = ".part-"
"""What names of files that are not whole yet begin with; short, since a name may be as long as a system allows."""


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``, with its suffix, that takes its place when the block ends well.

    The folder is made where it is missing. If the block raises, ``path`` stays as it was.

    Raises:
        OSError: If the file cannot be written; the message names ``path``.
    """
    path = Path(path)
    with named_errors(path), names_full_disk(path), temporary_file(path) as temporary:
        yield temporary
        put_in_place(temporary, path)


@contextmanager
def whole_files(*paths: Path) -> Iterator[list[Path]]:
    """Give a temporary path for each of the paths, as `whole_file`; all are written before the first takes its place.

    Raises:
        OSError: If one cannot be written; the message names the first path.
    """
    with named_errors(paths[0]), names_full_disk(paths[0]), ExitStack() as stack:
        temporaries = [stack.enter_context(temporary_file(path)) for path in paths]
        yield temporaries
        for temporary, path in zip(temporaries, paths, strict=True):
            put_in_place(temporary, path)


@contextmanager
def temporary_file(path: Path) -> Iterator[Path]:
    """Give an empty file beside ``path``, with its suffix, that is removed after the block where it is still there.

    The folder is made where it is missing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=_TEMPORARY, suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def put_in_place(temporary: Path, path: Path) -> None:
    """Rename a finished file to ``path``; the disk has its content first, and then its name."""
    with suppress(PermissionError, NotImplementedError):  # shares of other systems know no modes
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes files that only their owner reads
    with temporary.open("r+b") as file:  # some systems flush only what may be written
        os.fsync(file.fileno())
    temporary.replace(path)
    _sync_folder(path.parent)


@contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Name ``path``, not a temporary file, in errors of the system that the block raises, such as a full disk."""
    try:
        yield
    except OSError as error:
        ours = error.filename is None or Path(str(error.filename)).name.startswith(_TEMPORARY)
        if error.errno is None or not ours:
            raise  # of another file
        reason = f"{os.strerror(error.errno)}; nothing was written, and what was there is left as it was"
        raise type(error)(error.errno, reason, str(path)) from error


def _sync_folder(folder: Path) -> None:
    """Write the names in a folder to the disk, where the system can open folders."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _umask() -> int:
    """Return the process's file mode mask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
