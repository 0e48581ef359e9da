# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Files that a command is to write: validated before its work, none replaces an input, or another unasked; tables."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomalib_aoissl.data.files import save_picture, write_text

if TYPE_CHECKING:
    from PIL.Image import Image

    from anomalib_aoissl.bank.explaining import Explanation, Vote

SHOWN_VOTES = 12
"""Labelled patches that the picture of an explanation shows."""

_LONGEST_NAME = 255  # bytes, on every common file system


class OutputError(ValueError):
    """A file that a command must not write; the message says why and what to do."""


def check_outputs(outputs: Mapping[str, Path | None], inputs: Iterable[Path | str | None], *, overwrite: bool) -> None:
    """Validate the files that a command is to write.

    Args:
        outputs: Each file by the argument that names it; None for one that is not written.
        inputs: Files that the command reads, or whose content the user still needs; None for one that is not given.
        overwrite: Whether existing files may be replaced; inputs never are.

    Raises:
        OutputError: If a file is an input, stands twice, exists already, or cannot be written under its name.
    """
    read = {_identity(Path(path)) for path in inputs if path is not None}
    seen: dict[object, str] = {}
    for argument, path in outputs.items():
        if path is None:
            continue
        problem = _problem(path, overwrite)
        identity = _identity(path)
        if identity in read:
            problem = "is a file that the command reads. Give another name"
        elif identity in seen:
            problem = f"is the file of {seen[identity]} too. Give another name"
        if problem:
            msg = f"{argument} {path}: {problem}."
            raise OutputError(msg)
        seen[identity] = argument


def write_explanation(explanation: Explanation, picture: Image, options: argparse.Namespace, fault: str = "") -> None:
    """Write the picture and the data of the command explain, and print the votes for each class.

    And first in what the image is unlike the labelled ones, "" for nothing.
    """
    save_picture(options.output, picture)
    if options.data is not None:
        write_text(options.data, json.dumps(explanation.to_dict(), indent=1))
    if fault:
        print(f"note: the picture is unlike the labelled ones: {fault}")
    for name, share in explanation.tally.items():
        print(f"{share:6.1%} of the votes: {name or 'ignored'}")
    for name, share in explanation.predicted.items():
        print(f"{share:6.1%} of the mask: {name}")
    if explanation.differs:
        print(f"{explanation.differs:6.1%} of the region: the pixel head outweighs the vote")
    _say_missing(explanation.votes[:SHOWN_VOTES])
    unknown = "" if explanation.abstained is None else f", does not know {explanation.abstained:.1%} of the pixels"
    novelty = max(0.0, explanation.novelty)  # of a learnt patch it is rounded to a little below 0
    print(f"novelty {novelty:.3f}, uncertainty {explanation.uncertainty:.3f}{unknown}; {options.output}")


def _say_missing(votes: Sequence[Vote]) -> None:
    """Print which labelled pictures are not found, why that may be, and what their places count then."""
    missing = {vote.image: vote.unit for vote in votes if not os.path.isfile(vote.image)}  # noqa: PTH113 - any name
    if not missing:
        return
    name, unit = next(iter(missing.items()))
    remedy = "" if Path(name).is_absolute() else " Names are relative to the folder of training: run the command there."
    print(
        f"note: {len(missing)} labelled pictures shown are not found, such as {name or 'one without a name'}.{remedy} "
        f"Places in them are given in {unit}."
    )


class LeftOut:
    """Pictures that a command left out, each said with its fault: one bad file must not end the run."""

    def __init__(self) -> None:
        self.count = 0

    def say(self, *faults: object) -> None:
        """Count pictures, and say what is wrong with each."""
        self.count += len(faults)
        for fault in faults:
            print(f"left out: {fault}", file=sys.stderr)

    @property
    def exit_code(self) -> int:
        """1 where pictures were left out, as of ``anomalib predict``, else 0."""
        return int(self.count > 0)


def _problem(path: Path, overwrite: bool) -> str:
    """Return why a file cannot be written under its name, whatever is read; empty where it can."""
    if len(os.fsencode(path.name)) > _LONGEST_NAME:
        return f"the name has more than {_LONGEST_NAME} bytes. Give a shorter one"
    if path.is_dir():
        return "is a folder. Give the name of a file in it"
    above = next(parent for parent in path.absolute().parents if parent.exists())
    if not above.is_dir():
        return f"{above} is a file, not a folder. Give another name"
    if path.exists() and not overwrite:
        return "exists already. Give another name, or --overwrite to replace it"
    return ""


def _identity(path: Path) -> object:
    """Return what is equal for two names of one file: links, other spellings of the folder, other case."""
    try:
        status = path.stat()
    except OSError:  # not there yet
        return path.resolve()
    return status.st_dev, status.st_ino


def columns(lines: Sequence[tuple[Any, ...]]) -> str:
    """Lay lines out in columns, numbers to the right."""
    cells = [[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in line] for line in lines]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    first, *rest = widths
    return "\n".join("  ".join([line[0].ljust(first), *map(str.rjust, line[1:], rest)]).rstrip() for line in cells)
