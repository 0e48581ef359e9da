# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What arguments of models, datamodules and callbacks may be; errors name argument, value, and what is allowed."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any


class ArgumentError(ValueError):
    """An argument that is out of its range or of another type; the message names it, its value and what is allowed."""


@dataclass(frozen=True)
class Rule:
    """What an argument may be.

    Attributes:
        kind: Type in words, as after "must be".
        fits: Whether a value is of that type.
        inside: Whether a value of that type is allowed.
        bounds: What is allowed in words, as after "must"; empty where the type says all.
    """

    kind: str
    fits: Callable[[Any], bool]
    inside: Callable[[Any], bool] = lambda _: True
    bounds: str = ""

    def check(self, name: str, value: object) -> None:
        """Validate a value.

        Raises:
            ArgumentError: If it is of another type or not allowed.
        """
        if not self.fits(value):
            wanted = f"be {self.kind}{f', and {self.bounds}' if self.bounds else ''}"
        elif not self.inside(value):
            wanted = self.bounds
        else:
            return
        shown = repr(value)
        shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
        msg = f"{name}={shown} must {wanted}."
        raise ArgumentError(msg)


def validate(rules: Mapping[str, Rule], values: Mapping[str, Any]) -> None:
    """Validate the values that rules of the same name describe, such as the ``locals()`` of an ``__init__``.

    Raises:
        ArgumentError: At the first that is not allowed.
    """
    for name, rule in rules.items():
        rule.check(name, values[name])


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _interval(text: str) -> tuple[Callable[[Any], bool], str]:
    """Return the test of an interval such as "(0, 1]" or "[1, inf)", and its words.

    >>> [_interval(text)[1] for text in ("[1, inf)", "(0, inf)", "[0, inf)", "[0, 1)")]
    ['be at least 1', 'be greater than 0', 'not be negative', 'lie in [0, 1)']
    """
    low, high = (float(end) for end in text[1:-1].split(","))

    def inside(value: Any) -> bool:
        above = value > low if text[0] == "(" else value >= low
        return bool(above and (value < high if text[-1] == ")" else value <= high))

    if high != math.inf:
        return inside, f"lie in {text}"
    if text[0] == "(":
        return inside, f"be greater than {low:g}"
    return inside, "not be negative" if low == 0 else f"be at least {low:g}"


def whole(interval: str) -> Rule:
    """Return the rule of a whole number in an interval such as "[1, inf)"."""
    return Rule("a whole number", _is_whole, *_interval(interval))


def number(interval: str) -> Rule:
    """Return the rule of a finite number in an interval such as "(0, 1]"."""
    return Rule("a number", _is_number, *_interval(interval))


def choice(*names: str) -> Rule:
    """Return the rule of one of some names."""
    return Rule("text", lambda value: isinstance(value, str), lambda value: value in names, f"be one of {list(names)}")


def span(interval: str) -> Rule:
    """Return the rule of a range: two numbers in an interval, the smaller first."""
    inside, words = _interval(interval)

    def ordered(value: Any) -> bool:
        return all(inside(end) for end in value) and value[0] <= value[1]

    return Rule("two numbers", _is_pair_of(_is_number), ordered, f"{words} both, the smaller first")


def size_of(interval: str) -> Rule:
    """Return the rule of (height, width) px in an interval."""
    inside, words = _interval(interval)
    return Rule("(height, width)", _is_pair_of(_is_whole), lambda value: all(map(inside, value)), f"{words} px both")


def null_or(rule: Rule) -> Rule:
    """Return a rule that allows null (None) too."""
    return replace(
        rule,
        kind=f"{rule.kind} or null",
        fits=lambda value: value is None or rule.fits(value),
        inside=lambda value: value is None or rule.inside(value),
    )


def either(first: Rule, second: Rule) -> Rule:
    """Return a rule that allows what one of two rules does."""
    wordings = [rule.bounds for rule in (first, second) if rule.bounds]
    return Rule(
        f"{first.kind} or {second.kind}",
        lambda value: first.fits(value) or second.fits(value),
        lambda value: any(rule.fits(value) and rule.inside(value) for rule in (first, second)),
        " or ".join(wordings),
    )


def _is_pair_of(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Return whether a value is a list or tuple of two such values."""
    return lambda value: (
        isinstance(value, Sequence) and not isinstance(value, str) and [*map(fits, value)] == [True] * 2
    )


def _is_size(value: object) -> bool:
    return _is_whole(value) or _is_pair_of(_is_whole)(value)


def _is_positive_size(value: Any) -> bool:
    return all(0 < side <= _LONGEST for side in ([value] if _is_whole(value) else value))


_LONGEST = 32768

SEED = whole("[0, 4294967295]")
"""A seed, as every generator takes it."""

FLAG = Rule("true or false", lambda value: isinstance(value, bool))

TEXT = Rule("text", lambda value: isinstance(value, str) and bool(re.search(r"\S", value)))

SIZE = Rule(
    "one size or (height, width)",
    _is_size,
    _is_positive_size,
    f"be whole numbers of px, greater than 0 and at most {_LONGEST}",
)
"""A side or (height, width), px."""

NAMES = Rule("a list of names", lambda value: _is_list(value) and all(map(TEXT.fits, value)))

NUMBERS = Rule("a list of numbers", lambda value: _is_list(value) and all(map(_is_number, value)))

PATH = Rule("a path", lambda value: isinstance(value, str | Path) and bool(str(value)))
