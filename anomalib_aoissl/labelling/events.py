# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What the tabs of a page are told: each has a queue of its own."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator

_WAITING = 500  # events of a tab that does not read them


class Events:
    """Hands events to all that listen."""

    def __init__(self) -> None:
        self._queues: set[queue.Queue[str | None]] = set()
        self._lock = threading.Lock()
        self.closed = False

    def send(self, kind: str, **content: object) -> None:
        """Tell all tabs."""
        text = json.dumps({"kind": kind, **content})
        with self._lock:
            for one in self._queues:
                if one.qsize() < _WAITING:
                    one.put(text)

    def close(self) -> None:
        """End all that listen."""
        with self._lock:
            self.closed = True
            for one in self._queues:
                one.put(None)

    def listen(self) -> Iterator[str]:
        """Yield events as server-sent ones; a comment now and then, so that a closed tab is noticed."""
        mine: queue.Queue[str | None] = queue.Queue()
        with self._lock:
            self._queues.add(mine)
        try:
            yield "retry: 1000\n\n"
            while not self.closed:
                try:
                    text = mine.get(timeout=2)
                except queue.Empty:
                    yield ": still here\n\n"
                    continue
                if text is None:
                    return
                yield f"data: {text}\n\n"
        finally:
            with self._lock:
                self._queues.discard(mine)
