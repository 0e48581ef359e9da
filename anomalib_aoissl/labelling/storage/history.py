# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The history of a mask on disk: each change with what was there before, so that undo outlives the page."""

from __future__ import annotations

import base64
import json
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from anomalib_aoissl.data.files import write_text

_KEPT, _LARGEST = 200, 64_000_000  # changes, and bytes of a file that is shortened to them


@dataclass(frozen=True)
class Change:
    """A change of a mask.

    Attributes:
        kind: What was done: brush, line, fill, accept; "undo" and "redo" of these.
        left: First column of the region.
        top: First row.
        before: ``[H, W]`` uint8.
        after: The same region afterwards.
    """

    kind: str
    left: int
    top: int
    before: np.ndarray
    after: np.ndarray

    def turned(self, kind: str) -> Change:
        """Return the change that takes this one back."""
        return Change(kind, self.left, self.top, self.after, self.before)


class History:
    """Changes of one mask, in a file of a JSON object a line.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, change: Change) -> None:
        """Add a change; a history that cannot be written must not keep a mask from being saved."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(_plain(change)) + "\n")
            if self.path.stat().st_size > _LARGEST:
                self._shorten()
        except OSError:
            return

    def next(self, back: bool) -> Change | None:
        """Return the change that undoes the last one, or redoes what was undone last; None where there is none."""
        done: list[Change] = []
        undone: list[Change] = []
        for change in self.changes():
            if change.kind == "undo":
                undone.append(done.pop() if done else change.turned("change"))
            elif change.kind == "redo":
                done.append(undone.pop() if undone else change)
            else:
                done.append(change)
                undone.clear()
        if back:
            return done[-1].turned("undo") if done else None
        if not undone:
            return None
        again = undone[-1]
        return Change("redo", again.left, again.top, again.before, again.after)

    def changes(self) -> list[Change]:
        """Return all changes, the first first; a line that was cut off is left out."""
        changes: list[Change] = []
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            return []
        for line in lines:
            try:
                changes.append(_change(json.loads(line)))
            except (ValueError, KeyError, TypeError, zlib.error):
                continue
        return changes

    def _shorten(self) -> None:
        """Keep the last changes only."""
        lines = self.path.read_text(encoding="utf-8").splitlines()[-_KEPT:]
        while len(lines) > 1 and sum(map(len, lines)) > _LARGEST // 2:
            lines = lines[len(lines) // 2 :]
        write_text(self.path, "\n".join(lines) + "\n")


def _plain(change: Change) -> dict[str, Any]:
    """Return a change as plain data."""
    return {
        "time": round(time.time(), 3),
        "kind": change.kind,
        "box": [int(change.left), int(change.top), change.before.shape[1], change.before.shape[0]],
        "before": _packed(change.before),
        "after": _packed(change.after),
    }


def _change(content: dict[str, Any]) -> Change:
    """Return the change of plain data."""
    left, top, width, height = content["box"]
    before, after = (
        np.frombuffer(zlib.decompress(base64.b64decode(content[key])), np.uint8).reshape(height, width)
        for key in ("before", "after")
    )
    return Change(str(content["kind"]), left, top, before, after)


def _packed(values: np.ndarray) -> str:
    """Return values deflated, as text."""
    return base64.b64encode(zlib.compress(np.ascontiguousarray(values).tobytes(), 1)).decode()
