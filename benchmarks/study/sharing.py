# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Work shared by files: a job is claimed by creating a file, and its result is one file that is written whole.

Any number of processes, on machines that see the same folder, take what nobody has. A claim is alive while its owner
touches it; one whose owner is dead, or silent for too long, is stale and may be taken over.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock

from anomalib_aoissl.data.files import write_text

__all__ = ["Board"]

STALE_SECONDS = 600.0
"""Silence after which a claim of another machine counts as dead."""

_BEAT_SECONDS = 30.0


class Board:
    """Claims, results and failures of a study in its folder.

    Args:
        folder: The study's folder; made where it is missing.
        stale: Seconds of silence after which a claim of another machine may be taken over.
    """

    def __init__(self, folder: Path, stale: float = STALE_SECONDS) -> None:
        self.folder, self.stale = folder, stale
        for name in ("claims", "results", "failures"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    # --- results -----------------------------------------------------------------------------------------------------

    def result(self, job: str) -> dict[str, Any] | None:
        """Return the result of a job, None where there is none yet."""
        return _read(self.folder / "results" / f"{job}.json")

    def has_result(self, job: str) -> bool:
        """Return whether a job is done; a result that cannot be read is none."""
        return self.result(job) is not None

    def write_result(self, job: str, result: Mapping[str, Any]) -> None:
        """Write a result whole, and forget an earlier failure."""
        write_text(self.folder / "results" / f"{job}.json", json.dumps(dict(result), indent=1))
        (self.folder / "failures" / f"{job}.json").unlink(missing_ok=True)

    def write_failure(self, job: str, error: str) -> None:
        """Write down why a job failed."""
        write_text(self.folder / "failures" / f"{job}.json", json.dumps({"error": error, "time": self.now()}))

    def failure(self, job: str) -> dict[str, Any] | None:
        """Return when and why a job failed, None where it did not."""
        return _read(self.folder / "failures" / f"{job}.json")

    def now(self) -> float:
        """Return the time by the clock that dates the folder's files, s: those of two machines may differ."""
        with tempfile.TemporaryFile(dir=self.folder / "claims") as file:
            return os.fstat(file.fileno()).st_mtime

    # --- claims ------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def claim(self, job: str) -> Iterator[bool]:
        """Give whether the job is this process's; the claim is kept alive during the block, and removed after it."""
        path = self.folder / "claims" / f"{job}.json"
        if self.has_result(job) or not (self._create(path) or self._take_over(path)):
            yield False
            return
        ended = threading.Event()
        beat = threading.Thread(target=_keep_alive, args=(path, ended), daemon=True)
        beat.start()
        try:
            yield not self.has_result(job)  # somebody may have ended it between the look and the claim
        finally:
            ended.set()
            beat.join()
            if _read(path) == _owner():
                path.unlink(missing_ok=True)

    @staticmethod
    def _create(path: Path) -> bool:
        """Create the claim where there is none; of several processes at once, one succeeds."""
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            return False
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(json.dumps(_owner()))
        return True

    def _take_over(self, path: Path) -> bool:
        """Replace a stale claim; processes take turns, so that one of them sees it stale."""
        if not self._is_stale(path):
            return False
        with FileLock(self.folder / "claims" / ".lock"):
            if not self._is_stale(path):
                return False
            write_text(path, json.dumps(_owner()))
        return True

    def _is_stale(self, path: Path) -> bool:
        """Return whether a claim's owner is dead, as far as can be seen from here, or silent for too long."""
        try:
            touched = path.stat().st_mtime
        except FileNotFoundError:
            return False  # it was removed: the next look finds a result, or nobody
        owner = _read(path)
        if owner is not None and owner.get("host") == _host():
            return not _is_alive(owner)
        return self.now() - touched > self.stale


def _keep_alive(path: Path, ended: threading.Event) -> None:
    """Touch a claim until the job has ended."""
    while not ended.wait(_BEAT_SECONDS):
        with contextlib.suppress(FileNotFoundError):
            os.utime(path)


def _owner() -> dict[str, Any]:
    """Return what tells this process from any other."""
    return {"host": _host(), "pid": os.getpid(), "started": psutil.Process().create_time()}


def _host() -> str:
    """Return what tells where a process has its number: machines and containers may share a name."""
    marks = [socket.gethostname()]
    with contextlib.suppress(OSError):  # beyond Linux, the name alone
        marks.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
        marks.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(marks)


def _is_alive(owner: Mapping[str, Any]) -> bool:
    """Return whether a process of this machine lives; numbers of processes are used again, so its start counts too."""
    try:
        return bool(abs(psutil.Process(owner["pid"]).create_time() - owner["started"]) < 1.0)
    except (psutil.NoSuchProcess, KeyError):
        return False


def _read(path: Path) -> dict[str, Any] | None:
    """Return a file of ours, None where it is missing or not written yet."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return content if isinstance(content, dict) else None
