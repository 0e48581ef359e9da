# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What can go wrong while a page is open, as the status and the sentence that the page shows."""

from __future__ import annotations

from http import HTTPStatus

from anomalib_aoissl.data.files import is_full_disk


class Problem(Exception):  # noqa: N818 - it is shown to a person, not raised to a programmer
    """What the page says, and the status of the answer.

    Args:
        text: What happened and what to do.
        status: Of HTTP.
    """

    def __init__(self, text: str, status: int = HTTPStatus.BAD_REQUEST) -> None:
        super().__init__(text)
        self.status = int(status)


class StaleError(Problem):
    """A write that is based on an older mask than the present one."""

    def __init__(self, name: str, version: str) -> None:
        super().__init__(f"{name}: the mask was changed elsewhere in the meantime. Load it again.", HTTPStatus.CONFLICT)
        self.version = version


def unwritable(error: OSError, what: str) -> Problem:
    """Return what the page says where a file could not be written."""
    if is_full_disk(error):
        text = f"{what} could not be saved: the disk is full. Free some space; the page tries again by itself."
        return Problem(text, HTTPStatus.INSUFFICIENT_STORAGE)
    reason = error.strerror or str(error)
    text = f"{what} could not be saved: {reason}. Mend it (permissions?); the page tries again by itself."
    return Problem(text, HTTPStatus.INSUFFICIENT_STORAGE)
