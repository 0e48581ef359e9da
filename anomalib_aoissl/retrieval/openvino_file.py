# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""OpenVINO models from and to files, written whole or not at all; needs no torch."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from anomalib_aoissl.files import whole_file


@cache
def core() -> Any:
    """Return the one `openvino.Core` of this process, which is never given back.

    OpenVINO's CPU plugin gives the thread a stack for signals when a core is made and puts back the one before when the
    core goes (seen in 2026.4). Of two cores of which the older goes first, the younger then puts back memory that is
    freed, and the next signal with a handler, such as the end of a child process, ends the program.

    Raises:
        ImportError: If OpenVINO is not installed.
    """
    try:
        import openvino
    except ImportError as error:
        msg = "OpenVINO is needed: pip install 'anomalib-aoissl[openvino]', or openvino alone on the line."
        raise ImportError(msg) from error
    return openvino.Core()


def read_model(path: str | Path) -> Any:
    """Return the `openvino.Model` of an ``.xml`` (its ``.bin`` beside it) or ``.onnx`` file.

    Raises:
        ImportError: If OpenVINO is not installed.
        FileNotFoundError: If the file does not exist.
        ValueError: If it is damaged or no model.
    """
    reader, path = core(), Path(path)
    weights = path.with_suffix(".bin")
    for file in (path, weights) if path.suffix == ".xml" else (path,):
        if not file.is_file():
            msg = f"{file}: the model does not exist. Export one: anomalib export --export_type openvino."
            raise FileNotFoundError(msg)
    try:
        # Not mapped from the file: the model stays whole when its files are written anew, by itself or by others.
        return reader.read_model(path, config={"ENABLE_MMAP": False})
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        msg = f"{path}: cannot be read as a model ({reason}). Restore a copy of it and its .bin, or export it again."
        raise ValueError(msg) from error


def save_model(model: Any, path: str | Path) -> Path:
    """Write ``.xml`` and ``.bin`` and return the path of the ``.xml``.

    Both files are written beside their places before the first of the old ones is replaced, the ``.bin`` first.

    Raises:
        ValueError: If the path does not end with ``.xml``.
    """
    import openvino

    path = Path(path)
    if path.suffix != ".xml":
        msg = f"{path}: an OpenVINO model is saved as .xml and .bin; give a path that ends with .xml."
        raise ValueError(msg)
    with whole_file(path) as structure, whole_file(path.with_suffix(".bin")) as weights:
        openvino.serialize(model, str(structure), str(weights))
    return path
