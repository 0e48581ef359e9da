# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Errors of a full disk name the file that could not be written, which torch, safetensors and Lightning leave out."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FULL = {errno.ENOSPC, errno.EDQUOT}
_WORDS = ("No space left on device", "PytorchStreamWriter failed writing", "Disk quota exceeded")


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
