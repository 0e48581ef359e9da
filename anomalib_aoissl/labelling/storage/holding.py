# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What stays in memory, up to a size: the values that were used least go first, at a cost that does not grow."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Held(Generic[Value]):
    """Values by name, each of a version; an older version counts as none. Its user locks.

    Args:
        largest: Bytes of all values together; the newest stays, however large.
    """

    def __init__(self, largest: int) -> None:
        self.largest, self.size = largest, 0
        self._values: OrderedDict[str, tuple[str, Value, int]] = OrderedDict()

    def get(self, name: str, version: str) -> Value | None:
        """Return a value, which is now the one used last; None where this version is not held."""
        found = self._values.get(name)
        if found is None or found[0] != version:
            return None
        self._values.move_to_end(name)
        return found[1]

    def put(self, name: str, version: str, value: Value, size: int) -> None:
        """Hold a value of so many bytes in place of other versions."""
        self._drop(name)
        self._values[name] = version, value, size
        self.size += size
        while self.size > self.largest and len(self._values) > 1:
            self._drop(next(iter(self._values)))

    def _drop(self, name: str) -> None:
        """Let go of a value, where it is held."""
        found = self._values.pop(name, None)
        self.size -= found[2] if found is not None else 0
