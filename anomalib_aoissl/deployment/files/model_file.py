# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""OpenVINO models from and to files, written whole or not at all; needs no torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from anomalib_aoissl.data.files import named_errors, temporary_file

from .file_pair import Pair, read_pair, replace_pair
from .full_precision import keep_precision
from .kept_operations import kept_operations
from .onnx_checksum import read_onnx

if TYPE_CHECKING:
    import openvino

MODEL_SUFFIXES = (".xml", ".onnx")
"""Of exported models that OpenVINO reads."""

_MAY_BE_UNKNOWN = ("pixels.novelty",)
"""Names of constants in which NaN stands for what is not known."""

_FLOATS = ("f16", "f32", "f64")
"""Types whose values numpy knows."""

_KERNELS = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
"""oneDNN, which computes for OpenVINO, keeps 1,024 kernels otherwise, some for each image size: half a MB for
each size, half a GB in all. It reads this when it makes its first kernel; a user's own value stays."""

_LONGEST = 200  # characters of a runtime's reason in a message


def reason_of(error: Exception) -> str:
    """Return what a runtime's error says in its last line, for a message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1][:_LONGEST]


@cache
def core() -> openvino.Core:
    """Return the one `openvino.Core` of this process, which is never given back.

    Two cores in one process can crash it (seen in OpenVINO 2026.4). When a core is made, the CPU plugin gives the
    thread a new stack for signals. When the core is deleted, the plugin restores the stack from before. If the older of
    two cores is deleted first, the younger one restores a stack whose memory is freed already. The next signal, such as
    the end of a child process, then ends the program.

    Raises:
        ImportError: If OpenVINO is not installed.
    """
    try:
        import openvino
    except ImportError as error:
        msg = "OpenVINO is needed: pip install 'anomalib-aoissl[openvino]', or openvino alone on the line."
        raise ImportError(msg) from error
    os.environ.setdefault(*_KERNELS)
    return openvino.Core()


def read_model(path: str | Path) -> openvino.Model:
    """Return the `openvino.Model` of an ``.xml`` (its ``.bin`` beside it) or ``.onnx`` file.

    Raises:
        ImportError: If OpenVINO is not installed.
        FileNotFoundError: If the file does not exist.
        ValueError: If it was changed since it was written, is damaged, or is no model.
    """
    reader, path = core(), Path(path)
    if path.suffix not in MODEL_SUFFIXES:
        msg = f"{path}: an exported model ends with .xml (its .bin beside it) or .onnx. Give that file."
        raise ValueError(msg)
    if not path.is_file():
        msg = f"{path}: the model does not exist. Export one: anomalib export --export_type openvino."
        raise FileNotFoundError(msg)
    weights = path.with_suffix(".bin")
    if path.suffix == ".xml" and not weights.is_file():
        msg = f"{weights}: the weights of {path.name} are not there. Copy the file that was exported with it beside it."
        raise FileNotFoundError(msg)
    try:
        # From memory: what is checked is what is read, and it stays whole when the files are written anew.
        model = reader.read_model(*(read_pair(path) if path.suffix == ".xml" else [read_onnx(path)]))
        check_numbers(model)
    except (RuntimeError, ValueError) as error:
        what = f"cannot be read as a model ({reason_of(error)})"
        msg = f"{path}: {what}. Restore a copy of it and its .bin, or export it again."
        raise ValueError(msg) from error
    return model


def check_numbers(model: openvino.Model) -> None:
    """Validate that all constants of a model are finite, but for those that mean "not known" by NaN.

    Raises:
        ValueError: If one is not; such a model would give masks all the same.
    """
    for node in model.get_ops():
        if node.get_type_name() != "Constant" or node.get_friendly_name() in _MAY_BE_UNKNOWN:
            continue
        if node.get_element_type().get_type_name() in _FLOATS and not np.isfinite(node.data).all():
            msg = f"its constant {node.get_friendly_name()!r} holds NaN or infinity"
            raise ValueError(msg)


def save_model(
    model: openvino.Model,
    path: str | Path,
    beside: Mapping[Path, str | None] | None = None,
    companion: tuple[Any, Path] | None = None,
) -> Path:
    """Write ``.xml`` and ``.bin``, both or neither, and return the path of the ``.xml``.

    Args:
        model: `openvino.Model`.
        path: Of the ``.xml``.
        beside: Texts of files that are written with the model, by their paths; None for one that is removed.
        companion: A second `openvino.Model`, made of the first one, and the path of its ``.xml``.

    Raises:
        OSError: If they cannot be written; what was there is left as it was.
        ValueError: If the path does not end with ``.xml``.
    """
    path = Path(path)
    if path.suffix != ".xml":
        msg = f"{path}: an OpenVINO model is saved as .xml and .bin; give a path that ends with .xml."
        raise ValueError(msg)
    with named_errors(path), ExitStack() as stack:
        second = None if companion is None else _serialised(*companion, stack)
        replace_pair(_serialised(model, path, stack), beside, second)
    return path


def _serialised(model: openvino.Model, path: Path, stack: ExitStack) -> Pair:
    """Return a model in temporary files beside its path, which the stack removes.

    Raises:
        OSError: If they cannot be written.
    """
    import openvino

    structure, weights = (stack.enter_context(temporary_file(path.with_suffix(end))) for end in (".xml", ".bin"))
    try:
        openvino.serialize(kept_operations(model), str(structure), str(weights))
    except RuntimeError as error:
        msg = f"{path}: cannot be written ({error}). Is the disk full? What was there is left as it was."
        raise OSError(msg) from error
    structure.write_bytes(keep_precision(structure.read_bytes()))
    return Pair(structure, weights, path)
