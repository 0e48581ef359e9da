# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Options of ours for ``anomalib export``, and its log; for our models only.

They are options of the command and not arguments of a model: they say nothing about what was trained, and would end
up in the checkpoint. Anomalib's command line hands on the arguments that its engine knows, and leaves others alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from ..arguments import ArgumentError
from .log import logged_to
from .options import PICTURES, ExportData, exporting, gate_pictures

COMMAND = "export"


def add_options(parser: ArgumentParser) -> None:
    """Add the options to the parser of ``anomalib export``."""
    group = parser.add_argument_group("AOISSLRetrieval and AOISSLSegmenter")
    group.add_argument(
        "--gate",
        type=str,
        default=None,
        help=f"pictures on which the export is compared with the checkpoint ({PICTURES} where not said); off for none",
    )
    group.add_argument(
        "--model_api",
        type=bool,
        default=None,
        help="with --export_type openvino: write a second model, <name>_model_api.xml, for OpenVINO's Model API",
    )


def check_options(config: Namespace, is_ours: bool, model: str) -> None:
    """Validate the options of a command before anything is made.

    Raises:
        ArgumentError: If one is wrong, or given for a model that is not ours.
    """
    given = [name for name in ("gate", "model_api") if config.get(name) is not None]
    if given and not is_ours:
        msg = f"--{given[0]} is an option of AOISSLRetrieval and AOISSLSegmenter; {model} has none. Leave it out."
        raise ArgumentError(msg)
    if config.get("gate") is not None:
        gate_pictures(config.gate)
    if config.get("model_api") and _folder(config) != "openvino":
        msg = "--model_api true writes an OpenVINO model: say --export_type openvino."
        raise ArgumentError(msg)


@contextmanager
def options_of(config: Namespace, datamodule: ExportData | None) -> Iterator[None]:
    """Have exports take the options of a command while the block runs."""
    gate = PICTURES if config.get("gate") is None else config.gate
    with exporting(gate, model_api=bool(config.get("model_api")), datamodule=datamodule):
        yield


@contextmanager
def quiet(config: Namespace) -> Iterator[Path]:
    """Show our lines alone while the block runs; all go to ``<name>.log`` beside the model, whose path it gives."""
    root = config.get("export_root") or config.get("default_root_dir") or "results"
    path = Path(root) / "weights" / _folder(config) / f"{config.get('model_file_name') or 'model'}.log"
    with logged_to(path):
        yield path


def _folder(config: Namespace) -> str:
    """Return the folder of the export's type."""
    kind = config.get("export_type")
    return str(getattr(kind, "value", kind)).lower()
