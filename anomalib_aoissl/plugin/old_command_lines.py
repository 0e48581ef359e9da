# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Command lines and configuration files with old names of our classes' arguments, brought to the new ones."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from .autoload import HOSTS
from .options import OptionsRule
from .removed_arguments import moved_among, moved_in, moving_message, with_new_names

_CONFIG = ("--config", "-c")
_CALLBACKS = "trainer.callbacks"
_KEYS = ("model", "data", _CALLBACKS)
_COMMANDS = ("fit", "train", "validate", "test", "predict", "export")
_PACKAGE = __name__.partition(".")[0]


def with_new_arguments(arguments: Sequence[str]) -> list[str]:
    """Return a command line in which arguments of our classes have their new names; a line tells of each old one.

    A configuration file that has old names is replaced by its content. Where a field of options is set by itself, text
    that stands for the options becomes a field too: ``--model.encoder name --model.encoder.pretrained false``.
    """
    if not arguments or arguments[0] not in _COMMANDS:
        return list(arguments)
    pairs = list(_pairs(arguments[1:]))
    classes = _classes(pairs)
    named = []
    for place, (name, value) in enumerate(pairs):  # an option of a callback is of the last one named before it
        before = _classes(pairs[:place]).get(_CALLBACKS)
        named.append((_new_name(name, value, {**classes, _CALLBACKS: before}), value))
    fields = {name.rpartition(".")[0].lstrip("-") for name, _ in named if name.count(".") > 1}
    new = [_renewed_pair(name, value, classes, fields) for name, value in named]
    if new == pairs:
        return list(arguments)
    return [arguments[0], *(name if value is None else f"{name}={value}" for name, value in new)]


def _pairs(arguments: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Return options with their values; what stands alone has none."""
    rest = list(arguments)
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        if equals or not name.startswith("-"):
            yield (name, value) if name.startswith("-") else (f"{name}{equals}{value}", None)
        else:
            yield name, rest.pop(0) if rest and not rest[0].startswith("--") else None


def _classes(pairs: Sequence[tuple[str, str | None]]) -> dict[str, type | None]:
    """Return our classes that a command line names last for the model, the data and a callback; None for others."""
    found: dict[str, type | None] = {}
    for name, value in pairs:
        for key in _KEYS:
            if name in _CONFIG and value is not None:
                path = _content(value).get(key)
                path = path.get("class_path") if isinstance(path, Mapping) else path
            elif name in {f"--{key}", f"--{key}+", f"--{key}.class_path"} and value is not None:
                path = _content(value).get("class_path", value)
            else:
                continue
            if path is not None:
                found[key] = _class_of(path)
    return found


def _class_of(path: object) -> type | None:
    """Return our class of a name or an import path; None for others."""
    name = str(path).rpartition(".")[2]
    for host in HOSTS:
        cls = getattr(sys.modules.get(host), name, None)
        if isinstance(cls, type) and cls.__module__.partition(".")[0] == _PACKAGE:
            return cls
    return None


def _content(value: str) -> dict[str, Any]:
    """Return the content of a configuration file; empty for what is none."""
    try:
        found = yaml.safe_load(Path(value).read_text(encoding="utf-8")) if Path(value).is_file() else {}
    except (OSError, ValueError, yaml.YAMLError):  # to be reported by who reads it in earnest
        return {}
    return found if isinstance(found, dict) else {}


def _new_name(name: str, value: str | None, classes: Mapping[str, type | None]) -> str:
    """Return the new name of an option such as ``--model.k``."""
    key = next((key for key in _KEYS if name.startswith(f"--{key}.")), "")
    cls = classes.get(key)
    if cls is None or value is None or value.lstrip().startswith("{"):
        return name
    old = name.removeprefix(f"--{key}.").removeprefix("init_args.")
    places = moved_among({old: value}, moved_in(cls))
    if not places:
        return name
    _tell(moving_message(cls.__name__, places))
    return f"--{key}.{places[old]}"


def _renewed_pair(
    name: str, value: str | None, classes: Mapping[str, type | None], fields: set[str]
) -> tuple[str, str | None]:
    """Return an option and its value as they are to be parsed."""
    name = "--config" if name == "-c" else name
    if value is None:
        return name, None
    key, _, group = name.removeprefix("--").partition(".")
    short = _short(classes.get(key), group) if f"{key}.{group}" in fields else ""
    if short and not value.lstrip().startswith("{"):
        return f"{name}.{short}", value
    place = name.removeprefix("--").removesuffix("+")
    if name == "--config" or place in _KEYS:
        content = _content(value)
        new = _renewed(content, fields, "" if name == "--config" else place)
        if new != content:
            value = yaml.safe_dump(new, sort_keys=False)
    return name, value


def _short(cls: type | None, group: str) -> str:
    """Return the field that text gives of a group of options."""
    rule = getattr(cls, "RULES", {}).get(group)
    return rule.short if isinstance(rule, OptionsRule) else ""


def _renewed(node: object, fields: set[str], place: str = "") -> Any:
    """Return a part of a configuration with the new names of our classes' arguments."""
    if isinstance(node, list):
        return [_renewed(item, fields, place) for item in node]
    if not isinstance(node, dict):
        return node
    new = {key: _renewed(value, fields, place or str(key)) for key, value in node.items()}
    cls, arguments = _class_of(new.get("class_path")), new.get("init_args")
    if cls is None or not isinstance(arguments, dict):
        return new
    old = moved_among(arguments, moved_in(cls))
    if old:
        _tell(moving_message(cls.__name__, old))
    arguments = with_new_names(arguments, old, getattr(cls, "RULES", {}))
    for group, value in arguments.items():
        if isinstance(value, str) and f"{place}.{group}" in fields and _short(cls, group):
            arguments[group] = {_short(cls, group): value}
    return {**new, "init_args": arguments}


def _tell(message: str) -> None:
    """Write a warning, which Python would not show of a module that is no script."""
    sys.stderr.write(f"warning: {message}\n")
