# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Files that are written whole or not at all, and kept through a loss of power; errors of a full disk name the file."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from PIL.Image import Image

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

Container = TypeVar("Container", list[Any], dict[str, Any])

_TEMPORARY = ".part-"
"""What names of files that are not whole yet begin with; short, since a name may be as long as a system allows."""

_WRITERS = 16
"""Writers of one file at once whose left-overs are found again."""


_LEFT_OVER = 86_400
"""Seconds after its last change from which a file is left over, where there are no locks to tell."""

_FULL = {errno.ENOSPC, errno.EDQUOT}
_WORDS = ("No space left on device", "PytorchStreamWriter failed writing", "Disk quota exceeded")
"""What torch, safetensors and Lightning say of a full disk, without the file that could not be written."""

_READING_UMASK = threading.Lock()
"""Two threads at once would read, and leave, what the other one has set to read it."""


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``, with its suffix, that takes its place when the block ends well.

    The folder is made where it is missing. If the block raises, ``path`` stays as it was.

    Raises:
        OSError: If the file cannot be written; the message names ``path``.
    """
    with whole_files(Path(path)) as (temporary,):
        yield temporary


@contextmanager
def whole_files(*paths: Path) -> Iterator[list[Path]]:
    """Give a temporary path for each of the paths, as `whole_file`; all are written before the first takes its place.

    Raises:
        OSError: If one cannot be written; the message names the first path.
    """
    with named_errors(paths[0]), ExitStack() as stack:
        temporaries = [stack.enter_context(temporary_file(path)) for path in paths]
        yield temporaries
        for temporary, path in zip(temporaries, paths, strict=True):
            put_in_place(temporary, path)


def read_json_or(path: Path, empty: Container) -> Container:
    """Return what a JSON file holds; ``empty`` where it is missing, damaged, or of another type."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return empty
    return content if isinstance(content, type(empty)) else empty


def write_text(path: str | Path, text: str) -> None:
    """Write a text in UTF-8, whole or not at all, as `whole_file`."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def save_picture(path: str | Path, picture: Image, **options: Any) -> None:
    """Write a picture in the format of the file's suffix, whole or not at all, as `whole_file`."""
    with whole_file(path) as temporary:
        picture.save(temporary, **options)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Give a folder beside ``path`` that takes its place when the block ends well, and is removed when not.

    Raises:
        OSError: If ``path`` is a folder that holds something, or the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=path.parent))
    try:
        with names_full_disk(path):
            yield folder
        folder.chmod(0o777 & ~_umask())
        if path.is_dir():
            path.rmdir()  # an empty one
        folder.rename(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def temporary_file(path: Path) -> Iterator[Path]:
    """Give an empty file beside ``path``, with its suffix, that is removed after the block where it is still there.

    The folder is made where it is missing. A file that a killed process left for the same ``path`` is used again.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = _claimed(path)
    try:
        yield temporary
    finally:
        if handle is None or _is_named(handle, temporary):  # else it is in place, and the name is another writer's
            temporary.unlink(missing_ok=True)
        if handle is not None:
            os.close(handle)


def _claimed(path: Path) -> tuple[int | None, Path]:
    """Return a temporary file for ``path`` that no other writer has, and its lock; None where there are no locks.

    The system gives up a lock when its process ends. So a file without one is left over, and whoever locks it has it.
    """
    name = f"{_TEMPORARY}{zlib.crc32(os.fsencode(path.name)):08x}"
    for number in range(_WRITERS if fcntl is not None else 0):
        temporary = path.with_name(f"{name}-{number}{path.suffix}")
        handle = os.open(temporary, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_named(handle, temporary):
                os.truncate(handle, 0)
                return handle, temporary
        except BlockingIOError:
            pass  # of another writer, now
        except OSError:  # some network folders have no locks
            temporary.unlink(missing_ok=True)
            os.close(handle)
            break
        os.close(handle)
    _remove_old(path.parent, name)
    handle, random = tempfile.mkstemp(prefix=f"{name}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    return None, Path(random)


def _remove_old(folder: Path, name: str) -> None:
    """Remove what killed processes left of a file, by age: no writer waits a day, and no lock says who is at work."""
    for old in folder.glob(f"{name}-*"):
        with suppress(OSError):  # Windows removes no file that is open
            if time.time() - old.stat().st_mtime > _LEFT_OVER:
                old.unlink()


def _is_named(handle: int, path: Path) -> bool:
    """Tell whether an open file still has its name: another writer may have finished it, and renamed it, meanwhile."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


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
        with names_full_disk(path):
            yield
    except OSError as error:
        ours = error.filename is None or Path(str(error.filename)).name.startswith(_TEMPORARY)
        if error.errno is None or not ours:
            raise  # of another file, or it is named already
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
    with _READING_UMASK:
        mask = os.umask(0o077)  # what another thread makes just now is its owner's alone, and not open to all
        os.umask(mask)
    return mask


def is_full_disk(error: BaseException) -> bool:
    """Return whether an error says that a disk is full."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _FULL
    return any(words in str(error) for words in _WORDS)


@contextmanager
def names_full_disk(path: str | Path) -> Iterator[None]:
    """Name a file or folder in the error of a full disk that the block raises.

    Raises:
        OSError: If the disk is full.
    """
    try:
        yield
    except Exception as error:
        if not is_full_disk(error):
            raise
        advice = "The disk is full. Free some space, or choose another folder, and run again"
        raise OSError(errno.ENOSPC, advice, str(path)) from error
