# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Which arguments of a model the user wrote, as opposed to defaults: what is written wins over a checkpoint.

In Python these are the arguments of the call. A command line gives all of them, so it says itself which were written,
before it makes the model. Fields of options are told apart by names such as "vote.k".
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ClassVar, Protocol

from .arguments import Rule, validate
from .options import flat, plain

_COMMAND_LINE: ContextVar[Mapping[str, Any]] = ContextVar("written_on_the_command_line", default={})  # noqa: B039

_WRITTEN: ContextVar[frozenset[str] | None] = ContextVar("names_written_on_the_command_line", default=None)


class TakesArguments(Protocol):
    """An instance whose ``__init__`` is decorated with `takes_arguments`."""

    RULES: ClassVar[Mapping[str, Rule]]
    written_arguments: frozenset[str]
    knows_defaults: bool


def takes_arguments(init: Callable[..., None]) -> Callable[..., None]:
    """Return ``__init__`` that validates its arguments by the class's ``RULES`` and gets them as plain data.

    ``written_arguments`` of the instance are the names that its caller gave, or that the command line says. They are
    known in ``__init__``. Plain data, since a checkpoint with other values among its arguments cannot be loaded safely.
    """
    signature = inspect.signature(init)

    @functools.wraps(init)
    def wrapped(self: TakesArguments, *args: object, **kwargs: object) -> None:
        rules = type(self).RULES
        bound = signature.bind(self, *args, **kwargs)
        given = dict(list(bound.arguments.items())[1:])
        bound.apply_defaults()
        values = dict(list(bound.arguments.items())[1:])
        validate({name: rule for name, rule in rules.items() if name in values}, values)
        told = _WRITTEN.get()
        self.written_arguments = frozenset(flat(given, rules)) if told is None else told
        self.knows_defaults = told is not None or given.keys() != values.keys()
        init(self, **plain(rules, values))

    wrapped.__signature__ = signature  # type: ignore[attr-defined] # some ask without __wrapped__
    return wrapped


def is_written(model: TakesArguments, name: str) -> bool:
    """Return whether the user wrote an argument such as "vote.k".

    False where a program gave all arguments, as a parser without the start-up hook does: nobody knows the defaults.
    """
    return model.knows_defaults and name in model.written_arguments


@contextmanager
def only_these_written(names: frozenset[str] | None) -> Iterator[None]:
    """Give the names of the written arguments to the model that is made in the block; None where nobody knows them."""
    token = _WRITTEN.set(names)
    try:
        yield
    finally:
        _WRITTEN.reset(token)


def written_values(model: Any) -> dict[str, Any]:
    """Return the arguments that the user wrote for a model, by names such as "vote.k"; none of other models."""
    names: frozenset[str] = getattr(model, "written_arguments", frozenset())
    values = flat(model.hparams, model.RULES) if names else {}
    return {name: values[name] for name in names if name in values}


@contextmanager
def command_line_wrote(arguments: Mapping[str, Any]) -> Iterator[None]:
    """Give these arguments, by names such as "vote.k", to models that are loaded from a checkpoint in the block.

    Anomalib's export makes a new model of the checkpoint, which knows nothing of the one that it was given.
    """
    token = _COMMAND_LINE.set(arguments)
    try:
        yield
    finally:
        _COMMAND_LINE.reset(token)


def written_on_the_command_line() -> Mapping[str, Any]:
    """Return the arguments of the command that is running, by names such as "vote.k"; empty in Python."""
    return _COMMAND_LINE.get()
