# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What is known of pictures and masks without a look at the disk: values up to a size, and the painted pixels."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any, Generic, TypeVar

import numpy as np

from anomalib_aoissl.data.indices import IGNORE_INDEX

Value = TypeVar("Value")


class Held(Generic[Value]):
    """Values by name, each of a version, up to a size: those used least go first. Its user locks.

    Args:
        largest: Size of all values together; the newest stays, however large.
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
        """Hold a value of a size, such as its bytes, in place of other versions."""
        self._drop(name)
        self._values[name] = version, value, size
        self.size += size
        while self.size > self.largest and len(self._values) > 1:
            self._drop(next(iter(self._values)))

    def _drop(self, name: str) -> None:
        """Let go of a value, where it is held."""
        found = self._values.pop(name, None)
        self.size -= found[2] if found is not None else 0


class PaintedPixels:
    """The painted pixels of each picture, and their sums."""

    def __init__(self) -> None:
        self._counts: dict[str, tuple[str, np.ndarray]] = {}
        self._pixels, self._pictures = np.zeros(256, np.int64), np.zeros(256, np.int64)
        self._lock = threading.Lock()

    def names(self) -> set[str]:
        """Return the pictures that were counted."""
        return set(self._counts)

    def version(self, name: str) -> str | None:
        """Return the version of the mask that was counted; None where none was."""
        found = self._counts.get(name)
        return None if found is None else found[0]

    def set(self, name: str, version: str, counts: np.ndarray) -> None:
        """Take the number of pixels ``[256]`` of each value of a mask in place of those of its older versions."""
        with self._lock:
            self._add(name, -1)
            self._counts[name] = version, counts
            self._add(name, 1)

    def drop(self, name: str) -> None:
        """Forget a picture."""
        with self._lock:
            self._add(name, -1)
            self._counts.pop(name, None)

    def is_painted(self, name: str) -> bool:
        """Tell whether a picture has paint on it."""
        found = self._counts.get(name)
        return found is not None and bool(found[1][:IGNORE_INDEX].any())

    def share(self, name: str) -> float:
        """Return the share of a picture that is painted, in [0, 1]."""
        found = self._counts.get(name)
        return 0.0 if found is None else round(float(found[1][:IGNORE_INDEX].sum() / max(found[1].sum(), 1)), 4)

    def sums(self, classes: int) -> dict[str, Any]:
        """Return the painted pixels of each of so many classes, and the pictures that show it."""
        with self._lock:
            return {"counts": self._pixels[:classes].tolist(), "shown": self._pictures[:classes].tolist()}

    def shares(self) -> dict[str, float]:
        """Return the share that is painted of each picture with paint on it."""
        return {name: self.share(name) for name in list(self._counts) if self.is_painted(name)}

    def _add(self, name: str, sign: int) -> None:
        """Put a picture's pixels into the sums, or take them out."""
        if self.is_painted(name):
            counts = self._counts[name][1]
            self._pixels += sign * counts
            self._pictures += sign * (counts > 0)
