# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Arguments that belong together as one value: frozen dataclasses whose fields have rules, and plain data of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeAlias, TypeVar

import numpy as np

from .arguments import ArgumentError, Rule, validate

_Made = TypeVar("_Made", bound="Options")


@dataclass(frozen=True)
class Options:
    """Arguments that belong together; a subclass is a frozen dataclass whose fields all have a default.

    The command line shows the fields as ``--model.vote.k``. Where such a value is expected, a mapping of some of the
    fields will do.
    """

    RULES: ClassVar[Mapping[str, Rule]] = {}
    """What the fields may be."""

    def __new__(cls: type[_Made], *args: object, **kwargs: object) -> _Made:
        """Remember which fields the caller gave."""
        self = object.__new__(cls)
        given = [field.name for field in fields(cls)][: len(args)]
        vars(self)["_written"] = frozenset([*given, *kwargs])
        return self

    @property
    def written(self) -> frozenset[str]:
        """Names of the fields that were given, as opposed to defaults."""
        names: frozenset[str] = vars(self)["_written"]
        return names


_Given: TypeAlias = Options | Mapping[str, Any] | str


@dataclass(frozen=True)
class OptionsRule(Rule):
    """The rule of an argument that is an `Options`, a mapping of its fields, or text for one of its fields.

    Attributes:
        options: The dataclass.
        short: Field that text gives; empty where text is not allowed.
    """

    options: type[Options] = Options
    short: str = ""

    def written(self, value: _Given) -> dict[str, Any]:
        """Return the fields that a value gives."""
        if isinstance(value, Options):
            return {name: getattr(value, name) for name in sorted(value.written)}
        return {self.short: value} if isinstance(value, str) else dict(value)

    def made(self, value: _Given) -> Options:
        """Return a value as the dataclass."""
        return self.options(**self.written(value))

    def all(self, value: _Given) -> dict[str, Any]:
        """Return all fields of a value, those that it does not give with their defaults."""
        made = self.made(value)
        return {field.name: getattr(made, field.name) for field in fields(made)}

    def check(self, name: str, value: Any) -> None:
        """Validate a value and its fields.

        Raises:
            ArgumentError: If it is of another type, has other fields, or a field is not allowed.
        """
        super().check(name, value)
        known = [field.name for field in fields(self.options)]
        unknown = [str(key) for key in self.written(value) if key not in known]
        if unknown:
            msg = f"{name} takes no {unknown[0]}. It takes {', '.join(known)}."
            raise ArgumentError(msg)
        validate({f"{name}.{key}": rule for key, rule in self.options.RULES.items()}, flat({name: self.all(value)}))


def options_of(options: type[Options], short: str = "") -> OptionsRule:
    """Return the rule of an argument that is such a dataclass, or text for its field ``short``."""
    first = "text, or " if short else ""

    def fits(value: object) -> bool:
        return isinstance(value, options | Mapping) or (bool(short) and isinstance(value, str))

    kind = f"{first}a mapping of {', '.join(field.name for field in fields(options))}"
    return OptionsRule(kind, fits, options=options, short=short)


def plain(rules: Mapping[str, Rule], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments as plain data that a checkpoint may hold: options as mappings of all their fields."""
    values = {}
    for name, value in arguments.items():
        rule = rules.get(name)
        values[name] = rule.all(value) if isinstance(rule, OptionsRule) else value
    return {name: plain_data(value) for name, value in values.items()}


def plain_data(value: object) -> Any:
    """Return configuration objects and tuples as dictionaries and lists, paths as text, numpy's scalars as numbers."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain_data({field.name: getattr(value, field.name) for field in fields(value)})
    if isinstance(value, Mapping):
        return {str(key): plain_data(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain_data(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return value.item() if isinstance(value, np.generic) else value


def flat(arguments: Mapping[str, Any], rules: Mapping[str, Rule] | None = None) -> dict[str, Any]:
    """Return the arguments with the given fields of options by names such as "vote.k"; of all mappings without rules.

    >>> flat({"seed": 0, "vote": {"k": 3}})
    {'seed': 0, 'vote.k': 3}
    """
    return dict(_flat_items(arguments, rules))


def _flat_items(arguments: Mapping[str, Any], rules: Mapping[str, Rule] | None) -> Iterator[tuple[str, Any]]:
    for name, value in arguments.items():
        rule = None if rules is None else rules.get(name)
        if isinstance(rule, OptionsRule) and rule.fits(value):
            yield from ((f"{name}.{key}", item) for key, item in rule.written(value).items())
        elif rules is None and isinstance(value, Mapping):
            yield from ((f"{name}.{key}", item) for key, item in value.items())
        else:
            yield name, value


def nested(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments by names such as "vote.k" with the fields of one argument as a mapping.

    >>> nested({"seed": 0, "vote.k": 3, "vote.search": "exact"})
    {'seed': 0, 'vote': {'k': 3, 'search': 'exact'}}
    """
    found: dict[str, Any] = {}
    for name, value in arguments.items():
        group, _, field = name.partition(".")
        if field:
            found.setdefault(group, {})[field] = value
        else:
            found[group] = value
    return found
