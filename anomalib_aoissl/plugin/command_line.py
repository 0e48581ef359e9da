# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Anomalib's command line with our classes: a fault in an argument is one line, and what was written is known.

Other classes pass through as they are. The start-up hook attaches this once ``anomalib.cli`` has been executed.
"""

from __future__ import annotations

import difflib
import errno
import functools
import inspect
import re
import sys
import typing
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import MethodType
from typing import Any, NoReturn, Protocol

from jsonargparse import ArgumentParser, Namespace

from .export import command as export_command
from .export.options import ExportData
from .old_command_lines import with_new_arguments
from .options import Options, OptionsRule, flat
from .removed_arguments import removal_message, removed_from
from .written_arguments import command_line_wrote, only_these_written, written_values

PACKAGE = __name__.partition(".")[0]

_CLASS = re.compile(r"Problem with given class_path '([\w.]+)':\n")
_UNKNOWN = re.compile(
    r"(?:Option|Key|Group key) '([^']+)' is not (?:accepted|expected)|Unrecognized arguments: --([\w.]+)"
)
_VALUE = re.compile(r"G(?:ot|iven) value: (?:NestedArg\(key='[^']*', val=)?('[^']*'(?=\))|.*)")
_QUOTE = "'"
_WORDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text", "None": "null"}
_FAULTS = (ValueError, TypeError, OSError, ImportError)


class CommandLine(Protocol):
    """An ``AnomalibCLI`` that runs; parts are missing until it has made them."""

    subcommand: str
    config: Namespace
    parser: ArgumentParser
    model: object
    datamodule: ExportData | None
    engine: Any
    export_log: ExitStack


def attach(cli: Any) -> None:
    """Make a class like ``AnomalibCLI`` report faults of our classes' arguments in one line; once."""
    if hasattr(cli.init_parser, "attached"):
        return
    make, instantiate, run = cli.init_parser, cli.instantiate_classes, cli._run_subcommand
    add_export = cli.add_export_arguments

    @functools.wraps(make)
    def init_parser(**kwargs: Any) -> ArgumentParser:
        parser = make(**kwargs)
        parser.error = MethodType(functools.partial(_error, parser.error), parser)
        parser.parse_args = functools.partial(_parse, parser.parse_args)
        return parser

    @functools.wraps(add_export)
    def add_export_arguments(self: CommandLine, parser: ArgumentParser) -> None:
        add_export(self, parser)
        export_command.add_options(parser)

    @functools.wraps(instantiate)
    def instantiate_classes(self: CommandLine) -> None:
        _check_options(self)
        self.parser.add_instantiator(_instance, object, subclasses=True)  # type: ignore[arg-type] # it gives no names
        self.export_log = ExitStack()  # until the command has run
        try:
            _begin_export(self)
            with only_these_written(_written(self)):
                instantiate(self)
        except BaseException:
            self.export_log.close()
            raise
        _keep_replaced(self)

    @functools.wraps(run)
    def run_subcommand(self: CommandLine) -> None:
        _run(self, run)

    init_parser.attached = True  # type: ignore[attr-defined]
    cli.init_parser, cli.instantiate_classes = staticmethod(init_parser), instantiate_classes
    cli._run_subcommand = run_subcommand
    cli.add_export_arguments = add_export_arguments


def _run(cli: CommandLine, usual: Callable[[CommandLine], None]) -> None:
    """Run the command; faults that this package found are one line, and pictures that were left out an exit code."""
    model = getattr(cli, "model", None)
    try:
        with command_line_wrote(written_values(model)), _export_options(cli):
            usual(cli)
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            _fail(f"the disk is full: {error.filename or cli.engine.trainer.default_root_dir}")
        if not (_is_ours(type(error)) or _is_raised_by_us(error)):
            raise
        _fail(str(error))
    if getattr(model, "left_out", 0):  # the log has said which pictures, and why
        raise SystemExit(1)


def _begin_export(cli: CommandLine) -> None:
    """Validate our options of an export, and keep the log of one of our models short until it has run."""
    if cli.subcommand != export_command.COMMAND:
        return
    config = cli.config[cli.subcommand]
    path = str(config.model.class_path)
    ours = path.partition(".")[0] == PACKAGE
    try:
        export_command.check_options(config, ours, path.rpartition(".")[2])
        if ours:
            cli.export_log.enter_context(export_command.quiet(config))
    except (ValueError, OSError) as error:
        _fail(str(error))


@contextmanager
def _export_options(cli: CommandLine) -> Iterator[None]:
    """Have an export of one of our models take our options; other commands run as they are."""
    if cli.subcommand != export_command.COMMAND or not _is_ours(type(cli.model)):
        yield
        return
    with cli.export_log, export_command.options_of(cli.config[cli.subcommand], cli.datamodule):
        yield


def _is_ours(cls: type) -> bool:
    """Return whether a class is of this package."""
    return cls.__module__.partition(".")[0] == PACKAGE


def _is_raised_by_us(error: Exception) -> bool:
    """Return whether an error says what is wrong with a value, and this package raised it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    module = "" if trace is None else str(trace.tb_frame.f_globals.get("__name__"))
    return isinstance(error, ValueError) and module.partition(".")[0] == PACKAGE


def _fail(message: str) -> NoReturn:
    """Print one line and end the program as argparse does."""
    sys.stderr.write(f"error: {' '.join(message.split())}\n")
    raise SystemExit(2)


def _written(cli: CommandLine) -> frozenset[str] | None:
    """Return which arguments of a model of ours are written, on the command line or in a file; None for other models.

    The configuration holds defaults as well, so the arguments are parsed once more on to one without the model's.
    """
    path = (cli.config[cli.subcommand] or Namespace()).get("model.class_path")
    cls: Any = None if path is None else _class_of(path)
    if not hasattr(cls, "written_arguments"):
        return None
    others = cli.config.clone()
    del others[cli.subcommand]["model"]
    written = cli.parser.parse_args(cli.parser.args, namespace=others, defaults=False)[cli.subcommand]["model"]
    given = written.get("init_args", Namespace()).as_dict()
    return frozenset(flat(given, cls.RULES))


def _keep_replaced(cli: CommandLine) -> None:
    """Put defaults that a model replaced into the configuration, which the run saves: it is read again as written."""
    for name, value in getattr(getattr(cli, "model", None), "replaced_defaults", {}).items():
        arguments, (group, _, field) = cli.config[cli.subcommand].model.init_args, name.partition(".")
        if isinstance(arguments[group], Namespace):
            arguments[group][field] = value
        else:
            arguments[group] = value


def _parse(usual: Callable[..., Any], args: Sequence[str] | None = None, **kwargs: object) -> Any:
    """Parse arguments, those with old names too."""
    return usual(with_new_arguments(sys.argv[1:] if args is None else args), **kwargs)


def _check_options(cli: CommandLine) -> None:
    """Validate that options are not null, of which jsonargparse would make a fault without a name."""
    part = cli.config[cli.subcommand] or Namespace()
    callbacks = part.get("trainer.callbacks")
    for node in (part.get("model"), part.get("data"), *(callbacks if isinstance(callbacks, list) else [callbacks])):
        if not isinstance(node, Namespace) or "class_path" not in node:
            continue
        cls = _class_of(node.class_path)
        for name, rule in getattr(cls, "RULES", {}).items():
            if isinstance(rule, OptionsRule) and node.get(f"init_args.{name}", {}) is None:
                _fail(f"{cls.__name__}: {name}=null must be {rule.kind}.")


def _instance(cls: type, /, *args: Any, **kwargs: Any) -> Any:
    """Return an instance of a class that the command line asks for."""
    if not _is_ours(cls):
        return cls(*args, **kwargs)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("always", r"\w+: (old names of )?arguments", DeprecationWarning)  # hidden otherwise
            return cls(*args, **kwargs)
    except _FAULTS as error:
        _fail(f"{cls.__name__}: {error}")


def _error(
    usual: Callable[..., NoReturn], _parser: ArgumentParser, message: str, ex: Exception | None = None
) -> NoReturn:
    """Report a fault of the arguments: of our classes in one line, of others as usual."""
    line = one_line(message)
    if line is None:
        usual(message, ex)
    _fail(line)


def one_line(message: str) -> str | None:
    """Return in one line what is wrong with an argument of our classes, of a message of jsonargparse; None for others.

    The innermost class of the message that is no options counts, such as a callback in the trainer's list.
    """
    found = None
    for match in _CLASS.finditer(message):
        if not _is_options(match[1]):
            found = match
    if found is None or found[1].partition(".")[0] != PACKAGE:
        return None
    cls, text = _class_of(found[1]), message[found.end() :]
    name = ".".join(dict.fromkeys(re.findall(r'Parser key "([^"]+)"', text)))
    unknown = _UNKNOWN.search(text)
    if unknown is not None:
        key = (unknown[1] or unknown[2]).removeprefix("init_args.")
        return _unknown(cls, key if not name or key.startswith(f"{name}.") else f"{name}.{key}")
    value = _VALUE.search(text)
    if not name or value is None:
        return f"{cls.__name__}: {text.partition('Given value')[0]}"
    return f"{cls.__name__}: {name}={value[1].strip().strip(_QUOTE)} must be {_allowed(cls, name)}."


def _is_options(path: str) -> bool:
    """Return whether an import path is of options of ours."""
    return path.partition(".")[0] == PACKAGE and issubclass(_class_of(path), Options)


def _class_of(path: str) -> type:
    """Return the class of an import path, which jsonargparse has imported before."""
    module, _, name = path.rpartition(".")
    return typing.cast("type", getattr(sys.modules[module], name))


def _options_at(cls: type, name: str) -> type[Options] | None:
    """Return the options' class at a name such as "vote" of a class's arguments; None where there is none."""
    rule = getattr(cls, "RULES", {}).get(name)
    return rule.options if isinstance(rule, OptionsRule) else None


def _unknown(cls: type, name: str) -> str:
    """Return what is said of an argument that a class does not take."""
    group, _, field = name.partition(".")
    options = _options_at(cls, group)
    if group in removed_from(cls):
        return removal_message(cls.__name__, [group])
    holder, prefix = (options, f"{group}.") if field and options is not None else (cls, "")
    known = [f"{prefix}{key}" for key in inspect.signature(holder).parameters]
    name = name if prefix else group
    close = difflib.get_close_matches(name, known, n=3) or _fields_like(cls, name)
    advice = f"Did you mean {' or '.join(close)}?" if close else f"It takes {', '.join(known)}."
    return f"{cls.__name__}: takes no argument {name}. {advice}"


def _fields_like(cls: type, name: str) -> list[str]:
    """Return fields of a class's options whose names are like a name."""
    rules = {group: rule for group, rule in getattr(cls, "RULES", {}).items() if isinstance(rule, OptionsRule)}
    fields = {field: f"{group}.{field}" for group, rule in rules.items() for field in rule.options.RULES}
    return [fields[field] for field in difflib.get_close_matches(name, fields, n=3)]


def _allowed(cls: type, name: str) -> str:
    """Return in words which types or values an argument takes."""
    group, _, field = name.partition(".")
    options = _options_at(cls, group)
    parameters = inspect.signature(options if field and options else cls).parameters
    name = field if field and options else name
    annotation = str(parameters[name].annotation) if name in parameters else "of another type"
    if name in parameters and _options_at(cls, name) is not None:
        return str(cls.RULES[name].kind)  # type: ignore[attr-defined]
    annotation = re.sub(r"Literal\[([^\]]*)\]", r"one of \1", annotation)
    for kind, words in _WORDS.items():
        annotation = re.sub(rf"\b{kind}\b", words, annotation)
    return annotation.replace(" | ", " or ")
