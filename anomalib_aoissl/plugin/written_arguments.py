# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Which arguments of a model the user wrote, as opposed to defaults: what is written wins over a checkpoint.

In Python these are the arguments of the call. A command line gives all of them, so it says itself which were written.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

_COMMAND_LINE: ContextVar[Mapping[str, Any]] = ContextVar("written_on_the_command_line", default={})  # noqa: B039


def remembers_written(init: Callable[..., None]) -> Callable[..., None]:
    """Return ``__init__`` such that ``written_arguments`` of the instance are the names that its caller gave.

    Scalars of numpy become plain ones, since a checkpoint with others cannot be loaded safely.
    """
    signature = inspect.signature(init)

    @functools.wraps(init)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> None:
        given = signature.bind(self, *args, **kwargs).arguments
        init(**{name: value.item() if isinstance(value, np.generic) else value for name, value in given.items()})
        self.written_arguments = frozenset(list(given)[1:])

    wrapped.__signature__ = signature  # type: ignore[attr-defined] # some ask without __wrapped__
    return wrapped


@contextmanager
def command_line_wrote(arguments: Mapping[str, Any]) -> Iterator[None]:
    """Give these arguments to models that are loaded from a checkpoint while the block runs.

    Anomalib's export makes a new model of the checkpoint, which knows nothing of the one that the command line made.
    """
    token = _COMMAND_LINE.set(arguments)
    try:
        yield
    finally:
        _COMMAND_LINE.reset(token)


def written_on_the_command_line() -> Mapping[str, Any]:
    """Return the arguments of the command that is running; empty in Python."""
    return _COMMAND_LINE.get()
