# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""A row of the tables of bad inputs: what is tried, and the error or the value that is right."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest


@dataclass(frozen=True)
class Row:
    """One bad or odd input.

    Attributes:
        what: The input in words; names the test.
        act: Makes the input in the empty folder that it is given, runs our code on it, and returns what is checked.
        error: Pattern that the error's message matches; None where the input is read right.
        kind: Class of the error.
        value: What ``act`` must return where no error is expected.
    """

    what: str
    act: Callable[[Path], object]
    error: str | None = None
    kind: type[Exception] | tuple[type[Exception], ...] = ValueError
    value: object = None

    def check(self, folder: Path) -> None:
        """Run the row in an empty folder and assert its error or its value."""
        if self.error is None:
            np.testing.assert_equal(self.act(folder), self.value)
            return
        with pytest.raises(self.kind) as caught:
            self.act(folder)
        message = str(caught.value)
        assert re.search(self.error, message, flags=re.DOTALL), message
        assert len(message.splitlines()) <= 4, f"a message that nobody reads to its end:\n{message}"


def table(*rows: Row) -> list[object]:
    """Return the rows as parameters of a test, named by what they try."""
    return [pytest.param(row, id=row.what) for row in rows]
