# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Arguments that a class has no longer or under another name: they are taken for one more release, with a warning."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from .options import OptionsRule

_REMOVED, _MOVED = "removed_arguments", "moved_arguments"

_Class = TypeVar("_Class", bound=type)


def had_arguments(*names: str, moved: Mapping[str, str] | None = None) -> Callable[[_Class], _Class]:
    """Return a decorator of a class whose ``__init__`` takes old arguments and warns of them.

    The signature stays as it is, so that they are on no command line and in no checkpoint.

    Args:
        names: Arguments that are gone; they are ignored.
        moved: New place of arguments that have another name now, such as "crops.size" of "crop_size".
    """
    places = dict(moved or {})

    def decorate(cls: _Class) -> _Class:
        init: Callable[..., None] = cls.__init__  # type: ignore[misc]

        @functools.wraps(init)
        def wrapped(self: object, *args: object, **kwargs: object) -> None:
            owner = type(self).__name__
            given = [name for name in names if name in kwargs]
            if given:
                warnings.warn(removal_message(owner, given), DeprecationWarning, stacklevel=2)
            kwargs = {name: value for name, value in kwargs.items() if name not in names}
            old = moved_among(kwargs, places)
            if old:
                warnings.warn(moving_message(owner, old), DeprecationWarning, stacklevel=2)
            init(self, *args, **with_new_names(kwargs, old, getattr(self, "RULES", {})))

        wrapped.__signature__ = inspect.signature(init)  # type: ignore[attr-defined] # some ask without __wrapped__
        setattr(wrapped, _REMOVED, names)
        setattr(wrapped, _MOVED, places)
        cls.__init__ = wrapped  # type: ignore[misc]
        return cls

    return decorate


def renamed_attribute(old: str, new: str) -> Any:
    """Return a property that reads and sets the attribute which has another name now, and warns of it."""

    def warn(owner: object) -> None:
        message = f"{type(owner).__name__}.{old} is {new} now; the next release will not have the old name."
        warnings.warn(message, DeprecationWarning, stacklevel=3)

    def read(self: object) -> Any:
        warn(self)
        return getattr(self, new)

    def write(self: object, value: Any) -> None:
        warn(self)
        setattr(self, new, value)

    return property(read, write)


def removed_from(cls: type) -> tuple[str, ...]:
    """Return the names of the arguments that a class took once."""
    return getattr(inspect.getattr_static(cls, "__init__"), _REMOVED, ())


def moved_in(cls: type) -> Mapping[str, str]:
    """Return the new places of the arguments that a class took under other names."""
    return getattr(inspect.getattr_static(cls, "__init__"), _MOVED, {})


def moved_among(arguments: Mapping[str, Any], places: Mapping[str, str]) -> dict[str, str]:
    """Return those of the old names, with their new places, that arguments have."""
    return {old: new for old, new in places.items() if old in arguments}


def with_new_names(arguments: Mapping[str, Any], old: Mapping[str, str], rules: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments with the old ones, as `moved_among` found them, in their new places; new ones given win."""
    values = {name: value for name, value in arguments.items() if name not in old}
    for name, new in old.items():
        group, _, field = new.partition(".")
        rule = rules.get(group)
        if not field or not isinstance(rule, OptionsRule):
            values.setdefault(new, arguments[name])
        elif group not in values or rule.fits(values[group]):
            values[group] = {field: arguments[name], **rule.written(values.get(group, {}))}
    return values


def removal_message(owner: str, names: Iterable[str]) -> str:
    """Return what is said of removed arguments, in Python and on the command line."""
    return f"{owner}: arguments that are gone and have no effect: {', '.join(names)}. Leave them out."


def moving_message(owner: str, old: Mapping[str, str]) -> str:
    """Return what is said of arguments under old names, in Python and on the command line."""
    names = ", ".join(f"{name} is {new} now" for name, new in old.items())
    return f"{owner}: old names of arguments, which the next release will not take: {names}."
