# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Arguments that a class has no longer: Python code that still gives them runs for one more release, with a warning."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Iterable
from typing import Any

_NAMES = "removed_arguments"


def takes_removed(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator of ``__init__`` that takes these arguments, warns of them once, and ignores them.

    The signature stays as it is, so that they are on no command line and in no checkpoint.
    """

    def decorate(init: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(init)
        def wrapped(self: Any, *args: Any, **kwargs: Any) -> None:
            given = [name for name in names if name in kwargs]
            if given:
                warnings.warn(removal_message(type(self).__name__, given), DeprecationWarning, stacklevel=2)
            init(self, *args, **{name: value for name, value in kwargs.items() if name not in names})

        wrapped.__signature__ = inspect.signature(init)  # type: ignore[attr-defined] # some ask without __wrapped__
        setattr(wrapped, _NAMES, names)
        return wrapped

    return decorate


def removed_from(cls: type) -> tuple[str, ...]:
    """Return the names of the arguments that a class took once."""
    return getattr(inspect.getattr_static(cls, "__init__"), _NAMES, ())


def removal_message(owner: str, names: Iterable[str]) -> str:
    """Return what is said of removed arguments, in Python and on the command line."""
    return f"{owner}: arguments without effect, removed after 0.1.0: {', '.join(names)}. Leave them out."
