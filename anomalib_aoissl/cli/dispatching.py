# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Which command of ``python -m anomalib_aoissl`` lies where; each is imported when it is called."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pkgutil import resolve_name
from typing import Any

from anomalib_aoissl import MISSING_HERE


class CommandError(ValueError):
    """Arguments that a command cannot work with; the message says what to do."""


COMMANDS = {
    "doctor": ("doctor:add_doctor", "doctor:doctor"),
    "explain": ("explain:add_explain", "explain:explain"),
    "label": ("label:label_arguments", "label:label"),
    "label-next": ("checkpoints:add_label_next", "checkpoints:label_next"),
    "labels": ("labels:describe", "labels:labels"),
    "measure": ("measure:describe", "measure:measure"),
    "report": ("report:add_report_arguments", "report:report"),
}
"""Where in this folder the functions of a command are: the one that describes its arguments, the one that runs it."""

_OWN_PARSERS = {"bank": "bank"}
"""Modules of commands that read their arguments themselves."""


def dispatch(arguments: Sequence[str]) -> int:
    """Run the command that the first argument names, and return the exit code."""
    name = arguments[0]
    if name in _OWN_PARSERS:
        return int(import_module(f"{__package__}.{_OWN_PARSERS[name]}").main(arguments[1:]))
    if name in COMMANDS:
        return run(name, arguments[1:])
    asked = name in {"-h", "--help"}
    names = " | ".join((*COMMANDS, *_OWN_PARSERS))
    known = f"usage: python -m anomalib_aoissl [{names}] [--help]; without a command: the plugins found"
    print(known if asked else f"{name!r} is no command. {known}", file=None if asked else sys.stderr)
    return 0 if asked else 2


def run(name: str, arguments: Sequence[str]) -> int:
    """Run a command and return its exit code: 0 where it returns none, 2 where arguments or files are at fault."""
    parser = argparse.ArgumentParser(prog=f"python -m anomalib_aoissl {name}")
    try:
        describe, act = (resolve_name(f"{__package__}.{place}") for place in COMMANDS[name])
        parser.description = (act.__doc__ or "").strip()
        describe(parser)
        return act(parser.parse_args(arguments)) or 0
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        print(f"{name}: {said(error)}", file=sys.stderr)
        return 2


def said(error: Exception) -> str:
    """Return what an error says; of a part of the package that the line's install has not, what to do."""
    missing = isinstance(error, ModuleNotFoundError) and (error.name or "").startswith("anomalib_aoissl.")
    return MISSING_HERE if missing else str(error)


def add_lighting_channels(parser: argparse.ArgumentParser, text: str) -> None:
    """Add ``--lighting_channels`` with its help text; its name of version 0.2.0 is taken with a warning."""
    parser.add_argument("--lighting_channels", nargs="+", default=(), metavar="SUFFIX", help=text)
    parser.add_argument(
        "--illuminations",
        dest="lighting_channels",
        nargs="+",
        action=_OldOption,
        default=argparse.SUPPRESS,
        help=argparse.SUPPRESS,
    )


class _OldOption(argparse.Action):
    """Takes an option under its old name, and warns of it."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string: Any = None
    ) -> None:
        del parser
        print(f"warning: {option_string} is --{self.dest} now; the next release will not take it.", file=sys.stderr)
        setattr(namespace, self.dest, values)


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """Add ``--overwrite``."""
    parser.add_argument("--overwrite", action="store_true", help="replace files of the same names; never an input")
