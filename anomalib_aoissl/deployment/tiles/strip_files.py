# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Maps that are written strip by strip, whole or not at all, and read as memory maps; needs no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from anomalib_aoissl.data.files import whole_file

SUFFIXES = (".tif", ".tiff", ".npy")
"""Of files that are written strip by strip."""

_BIG = 1 << 31  # bytes from which on a TIFF needs places of 64 bits


MAPS = ("", "novelty", "uncertainty")
"""Names of the maps of a picture; the class map has none."""


def check_output(path: str | Path, read: Iterable[Path] = ()) -> Path:
    """Return the path of a class map that is written strip by strip.

    Args:
        path: The path.
        read: Files of the picture that the map is of.

    Raises:
        ValueError: If its suffix is another, or one of the maps would be written over a file of the picture.
    """
    path = Path(path)
    written = {place_of(path, name).resolve(): place_of(path, name) for name in MAPS}
    lost = [written[file.resolve()] for file in read if file.resolve() in written]
    if lost:
        what = "is" if lost[0] == path else f"writes {lost[0]} too, which is"
        msg = f"output={path} {what} the picture itself, which would be lost. Give another file."
        raise ValueError(msg)
    if path.suffix.lower() not in SUFFIXES:
        msg = f"output={path} must end with one of {', '.join(SUFFIXES)}, which are written strip by strip."
        raise ValueError(msg)
    return path


class StripFiles:
    """Maps of one size that grow from the top: in memory, or in files that are there when the block ends well.

    Files are written, not mapped, while they grow: a full disk is then an error that can be caught.

    Args:
        output: File of the map without a name, as `check_output` allows; others lie beside it, as
            ``<stem>_<name><suffix>``. None for memory.
        size: (height, width), px.
        kinds: Type of each map.

    Raises:
        OSError: If a file cannot be written; what was there is left as it was.
    """

    def __init__(self, output: str | Path | None, size: tuple[int, int], kinds: Mapping[str, Any]) -> None:
        self._output = None if output is None else Path(output)
        self._size, self._kinds, self._row = size, kinds, 0
        self._stack = ExitStack()
        self._memory: dict[str, np.ndarray] = {}
        self._streams: dict[str, Any] = {}

    def __enter__(self) -> StripFiles:
        if self._output is None:
            self._memory = {name: np.empty(self._size, kind) for name, kind in self._kinds.items()}
            return self
        try:
            for name in self._kinds:
                temporary = self._stack.enter_context(whole_file(self._path(name)))
                stream = self._stack.enter_context(temporary.open("r+b"))
                stream.seek(_begin(temporary, self._size, self._kinds[name]))
                self._streams[name] = stream
        except BaseException as error:
            self._stack.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def add(self, strips: Mapping[str, np.ndarray]) -> None:
        """Append the rows of all maps; names that are not among the kinds are left out.

        Raises:
            OSError: If they cannot be written.
        """
        rows = len(strips[""])
        for name, kind in self._kinds.items():
            if name in self._memory:
                self._memory[name][self._row : self._row + rows] = strips[name]
            else:
                self._streams[name].write(_bytes_of(strips[name], kind).data)
        self._row += rows

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the maps, those of files as memory maps that are not to be written."""
        if self._output is None:
            return self._memory
        mapped: dict[str, np.ndarray] = {}
        for name, kind in self._kinds.items():
            path = self._path(name)
            mapped[name] = np.memmap(path, kind, "r", _begin_of(path), self._size)
        return mapped

    def _path(self, name: str) -> Path:
        """Return the file of a map."""
        assert self._output is not None  # noqa: S101 - for the type checker; asked where there are files
        return place_of(self._output, name)


def place_of(path: Path, name: str) -> Path:
    """Return the file of a map, given that of the class map."""
    return path.with_name(f"{path.stem}_{name}{path.suffix}") if name else path


def _bytes_of(array: np.ndarray, kind: Any) -> np.ndarray:
    """Return an array as it stands in a file."""
    return np.ascontiguousarray(array, kind)


def _begin(path: Path, size: tuple[int, int], kind: Any) -> int:
    """Write a file without its values, and return where these begin."""
    if path.suffix.lower() == ".npy":
        with path.open("wb") as file:
            descr = np.lib.format.dtype_to_descr(np.dtype(kind))
            np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": size})
    else:
        import tifffile

        big = int(np.prod(size, dtype=np.int64)) * np.dtype(kind).itemsize >= _BIG
        tifffile.imwrite(path, shape=size, dtype=kind, photometric="minisblack", bigtiff=big, metadata=None)
    return _begin_of(path)


def _begin_of(path: Path) -> int:
    """Return where the values of a file begin."""
    if path.suffix.lower() == ".npy":
        with path.open("rb") as file:
            np.lib.format.read_magic(file)
            np.lib.format.read_array_header_1_0(file)
            return file.tell()
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        return int(tiff.pages.first.dataoffsets[0])
