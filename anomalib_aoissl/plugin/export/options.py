# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What our models' exports are told beside the arguments that anomalib's engine hands on.

The engine's ``export`` has a fixed list of arguments and makes a new model of the checkpoint, so neither a keyword nor
an attribute of the model would arrive.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

from ..arguments import ArgumentError

PICTURES = 6
"""Pictures that the gate compares where none is said."""


class ExportData(Protocol):
    """A datamodule, from whose datasets an export takes pictures."""

    def prepare_data(self) -> None:
        """Fetch what is to be read."""

    def setup(self, stage: str) -> None:
        """Make the datasets."""


@dataclass(frozen=True)
class ExportOptions:
    """Options of an export.

    Attributes:
        gate: Pictures on which the export is compared with the trained model; 0 for no comparison.
        model_api: Whether an OpenVINO export writes a second model for OpenVINO's Model API.
        datamodule: Where the pictures come from; None for the one that the export is given, or the drawn set.
    """

    gate: int = PICTURES
    model_api: bool = False
    datamodule: ExportData | None = None


_OPTIONS: ContextVar[ExportOptions] = ContextVar("export_options", default=ExportOptions())  # noqa: B039


def export_options() -> ExportOptions:
    """Return the options of the export that is running."""
    return _OPTIONS.get()


@contextmanager
def exporting(
    gate: int | str = PICTURES, *, model_api: bool = False, datamodule: ExportData | None = None
) -> Iterator[None]:
    """Have exports of our models take these options while the block runs.

    Args:
        gate: Pictures to compare, or "off".
        model_api: Whether to write a second model for OpenVINO's Model API.
        datamodule: Where the pictures come from.

    Raises:
        ArgumentError: If the gate is neither a whole number above 0 nor "off".
    """
    token = _OPTIONS.set(ExportOptions(gate_pictures(gate), model_api, datamodule))
    try:
        yield
    finally:
        _OPTIONS.reset(token)


def gate_pictures(gate: int | str) -> int:
    """Return how many pictures a gate compares; 0 for "off".

    Raises:
        ArgumentError: If it is neither a whole number above 0 nor "off".
    """
    if gate == "off":
        return 0
    text = str(gate)
    if not text.isdecimal() or int(text) < 1:
        msg = f'gate={gate} must be a whole number of pictures, 1 or more, or "off".'
        raise ArgumentError(msg)
    return int(text)
