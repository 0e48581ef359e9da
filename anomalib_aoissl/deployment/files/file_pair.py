# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The two files of an OpenVINO model, ``.xml`` and ``.bin``, replaced together and checked together.

No system renames two files at once. So the ``.bin`` passes through states that serve the old ``.xml`` and the new one:

1. ``.bin``: the old weights, and the new ones behind them at ``start``;
2. ``.xml``: the new graph, which reads its weights at ``start``;
3. ``.bin``: the new weights twice, at 0 and at ``start``;
4. ``.xml``: the new graph, which reads its weights at 0;
5. ``.bin``: the new weights once.

Whenever this ends, any reader of OpenVINO models opens the old model whole or the new one whole.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from anomalib_aoissl.data.files import named_errors, put_in_place, temporary_file

_PAGE = 4096
"""Bytes that the place of weights in a file is a multiple of, so that they lie in memory as OpenVINO laid them."""

_WEIGHTS = re.compile(rb'(type="Const"[^>]*>\s*<data [^>]*?offset=")(\d+)(" size="(\d+)")')
"""Where a graph says the place and the size of a constant."""

_CHECKSUM = re.compile(rb"<!-- aoissl sha256=([0-9a-f]{64}) weights=(\d+)\+(\d+) -->\n?\Z")
"""Last line of an ``.xml``: checksum of what stands before it and of a part of the ``.bin``, its place and its size."""


@dataclass(frozen=True)
class Pair:
    """A serialised model, and where it is to be.

    Attributes:
        structure: The graph.
        weights: Its weights.
        path: Where the graph goes, ``.xml``; the weights go to the ``.bin`` beside it.
    """

    structure: Path
    weights: Path
    path: Path


def replace_pair(pair: Pair, beside: Mapping[Path, str | None] | None = None, companion: Pair | None = None) -> None:
    """Put a serialised graph and its weights in place, both or neither, with a checksum.

    Other files beside a model belong to it, such as the gate's report. Those of the old model are removed first. Then
    the new model is put in place, and its own files last. So at no moment is a file of one model beside another model.

    Args:
        pair: The model.
        beside: Texts of files that go along, by their paths; None for a file that is not to be there any more.
        companion: A second model, made of the first one.

    Raises:
        OSError: If the files cannot be written, or the given ones are not whole, as on a full disk.
    """
    with named_errors(pair.path), ExitStack() as stack:
        # All is written before the first change, so that a full disk changes nothing.
        steps, gone = _steps(pair, stack), list(beside or {})
        if companion is not None:
            steps += _steps(companion, stack, alone=True)
            gone += [companion.path, companion.path.with_suffix(".bin")]
        for place, text in (beside or {}).items():
            if text is not None:
                steps.append((stack.enter_context(temporary_file(place)), place))
                steps[-1][0].write_text(text, encoding="utf-8")
        _remove(gone)
        for file, place in steps:
            put_in_place(file, place)


def _steps(pair: Pair, stack: ExitStack, *, alone: bool = False) -> list[tuple[Path, Path]]:
    """Return which file takes which place, in turn; the files are written, and removed by the stack if left over.

    Args:
        pair: The model.
        stack: Holds the files.
        alone: Whether nothing will be in the places.
    """
    path, weights = pair.path, pair.weights
    target, size = path.with_suffix(".bin"), weights.stat().st_size
    graph = pair.structure.read_bytes()
    _check_whole(graph, size, path)
    both = path.is_file() and target.is_file() and not alone
    start = -(-max(size, target.stat().st_size) // _PAGE) * _PAGE if both else 0

    def laid(old: Path | None) -> Path:
        """Return a new file of weights: other ones before ``start`` where they are given, ours behind them."""
        file = stack.enter_context(temporary_file(target))
        with file.open("wb") as stream:
            _copy_to(stream, old)
            stream.seek(0 if old is None else start)
            _copy_to(stream, weights)
        return file

    def graph_at(place: int) -> Path:
        """Return a new file of the graph that reads its weights at a place."""
        file = stack.enter_context(temporary_file(path))
        moved = _WEIGHTS.sub(lambda m: b"%s%d%s" % (m[1], int(m[2]) + place, m[3]), graph)
        file.write_bytes(moved + _checksum_line(moved, weights, place, size))
        return file

    if both:
        return [
            (laid(target), target),
            (graph_at(start), path),
            (laid(weights), target),
            (graph_at(0), path),
            (laid(None), target),
        ]
    steps = [(laid(None), target), (graph_at(0), path)]
    if path.is_file() and not alone:
        steps.reverse()  # a graph that has lost its weights must not find those of another
    return steps


def _remove(places: Iterable[Path]) -> None:
    """Remove files beside a model that say what is no longer so."""
    for place in places:
        if os.path.lexists(place):  # a name that is too long for the system is of no file
            place.unlink(missing_ok=True)


def read_pair(path: Path) -> tuple[bytes, bytes]:
    """Return the bytes of an ``.xml`` and its ``.bin``.

    Raises:
        ValueError: If the checksum in the ``.xml`` says that one of them was changed; files without one are not known.
    """
    while True:
        graph, weights = path.read_bytes(), path.with_suffix(".bin").read_bytes()
        if _fit(graph, weights):
            return graph, weights
        if graph == path.read_bytes() and weights == path.with_suffix(".bin").read_bytes():
            msg = "its checksum is another: the .xml or the .bin was changed, or they are not of one model"
            raise ValueError(msg)  # else they were being replaced just now


def has_checksum(path: Path) -> bool:
    """Tell whether an ``.xml`` ends with a checksum."""
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - 200, 0))
        return _CHECKSUM.search(file.read()) is not None


def _fit(graph: bytes, weights: bytes) -> bool:
    """Tell whether a graph's checksum is that of itself and the weights, or it has none."""
    found = _CHECKSUM.search(graph)
    if found is None:
        return True
    start, size = int(found[2]), int(found[3])
    digest = _started(graph[: found.start()])
    digest.update(memoryview(weights)[start : start + size])
    return digest.hexdigest().encode() == found[1]


def _checksum_line(graph: bytes, weights: Path, place: int, size: int) -> bytes:
    """Return the last line of a graph whose weights, those of a file, lie at a place."""
    digest = _started(graph)
    digest.update(weights.read_bytes())
    return b"<!-- aoissl sha256=%s weights=%d+%d -->\n" % (digest.hexdigest().encode(), place, size)


def _started(graph: bytes) -> hashlib._Hash:
    """Return a checksum that has read a graph; it does not count how a version control system ends lines."""
    return hashlib.sha256(graph.replace(b"\r\n", b"\n"))


def _check_whole(graph: bytes, size: int, path: Path) -> None:
    """Validate that a serialised graph ends, and that its weights are all there: OpenVINO does not tell a full disk."""
    ends = [int(found[2]) + int(found[4]) for found in _WEIGHTS.finditer(graph)]
    if not graph.rstrip().endswith(b"</net>") or max(ends, default=0) > size or len(ends) != graph.count(b'"Const"'):
        msg = f"{path}: OpenVINO did not write the model whole. Is the disk full? What was there is left as it was."
        raise OSError(msg)


def _copy_to(stream: BinaryIO, source: Path | None) -> None:
    """Append a file to a stream, where one is given."""
    if source is not None:
        with source.open("rb") as file:
            shutil.copyfileobj(file, stream, 1 << 20)
