# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Writes the tables of arguments in the documents, from signatures and docstrings.

``python docs/argument_tables.py`` says which documents are not current, and ``--write`` writes them. A table stands
between ``<!-- arguments: Name -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from docstring_parser import DocstringStyle, parse

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = (
    "anomalib_aoissl/retrieval/README.md",
    "anomalib_aoissl/segmenter/README.md",
    "anomalib_aoissl/pretraining/README.md",
    "anomalib_aoissl/data/README.md",
    "docs/own-images.md",
)
_PLACE = re.compile(r"<!-- arguments: (\w+) -->\n.*?<!-- end -->", re.DOTALL)


def classes() -> dict[str, Any]:
    """Return the classes whose arguments are shown."""
    from anomalib_aoissl import AOISSLRetrieval, AOISSLSegmenter, SegmentationFolder, WireBond
    from anomalib_aoissl.pretraining import DINOPretraining, MAEPretraining
    from anomalib_aoissl.pretraining.callback import PretrainingCallback

    models = (AOISSLRetrieval, AOISSLSegmenter, SegmentationFolder, WireBond)
    callbacks = (PretrainingCallback, MAEPretraining, DINOPretraining)
    return {cls.__name__: cls for cls in (*models, *callbacks)}


def table(cls: Any) -> str:
    """Return the table of a class's arguments."""
    rows = "\n".join(f"| `{name}` | {default} | {meaning} |" for name, default, meaning in _rows(cls))
    return f"| argument | default | meaning |\n| --- | --- | --- |\n{rows}"


def _rows(cls: Any) -> Iterator[tuple[str, str, str]]:
    """Return name, default and meaning of each argument, those of options after their own.

    Of a callback, those that its base does not have, or has with other options.
    """
    from anomalib_aoissl.plugin.options import OptionsRule

    meanings = _meanings(cls)
    own = inspect.get_annotations(cls) if is_dataclass(cls) else inspect.signature(cls).parameters
    for name, parameter in inspect.signature(cls).parameters.items():
        if name not in own:
            continue
        rule = getattr(cls, "RULES", {}).get(name)
        options = rule.options if isinstance(rule, OptionsRule) else None
        yield name, "" if options and not rule.short else _default(parameter.default), meanings[name]
        if options is not None:
            of = _meanings(options)
            yield from ((f"{name}.{field.name}", _default(field.default), of[field.name]) for field in fields(options))


def _meanings(cls: Any) -> dict[str, str]:
    """Return what the docstrings of a class and its bases say of each argument."""
    texts = [vars(base).get("__doc__") for base in reversed(cls.__mro__)]
    found = [parse(inspect.cleandoc(text), style=DocstringStyle.GOOGLE) for text in texts if text]
    return {item.arg_name: _markdown(item.description or "") for doc in found for item in doc.params}


def _markdown(text: str) -> str:
    """Return a docstring's text as the cell of a table."""
    plain = " ".join(text.replace("``", "`").replace("|", "\\|").split())
    return re.sub(r",? see `\w+`", "", plain)


def _default(value: Any) -> str:
    """Return a default as the command line writes it."""
    if value is inspect.Parameter.empty:
        return "required"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return (
        ", ".join(map(str, value))
        if isinstance(value, tuple)
        else f"{value:g}"
        if isinstance(value, float)
        else f"{value}"
    )


def current(text: str) -> str:
    """Return a document with its tables as they are to be."""
    known = classes()

    def replaced(place: re.Match[str]) -> str:
        return f"<!-- arguments: {place[1]} -->\n\n{table(known[place[1]])}\n\n<!-- end -->"

    return _PLACE.sub(replaced, text)


def main() -> int:
    """Write the documents, or say which are not current; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    write, old = parser.parse_args().write, []
    for name in DOCUMENTS:
        text = (ROOT / name).read_text(encoding="utf-8")
        if current(text) != text:
            old.append(name)
            if write:
                (ROOT / name).write_text(current(text), encoding="utf-8")
    if old and not write:
        sys.stderr.write(f"Not current: {', '.join(old)}. Run python docs/argument_tables.py --write.\n")
    return 1 if old and not write else 0


if __name__ == "__main__":
    sys.exit(main())
