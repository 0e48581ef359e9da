# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Files that go along with an exported model: the gate's result, and the model for OpenVINO's Model API."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["beside", "files_of", "model_api_path", "report_path", "report_text"]


def files_of(path: Path) -> list[Path]:
    """Return the files of an exported model, whose weights lie beside an ``.xml``; of any other file itself."""
    return [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]


def report_path(path: Path) -> Path:
    """Return the path of the gate's result beside an exported model."""
    return path.with_suffix(".gate.json")


def model_api_path(path: Path) -> Path:
    """Return the path of the model for OpenVINO's Model API beside an exported ``.xml``."""
    return path.with_name(f"{path.stem}_model_api.xml")


def beside(path: Path, metadata: Mapping[str, Any]) -> dict[Path, str | None]:
    """Return what goes along with a model, given what the model says of itself, as `save_model` takes.

    The gate's result; None where the model has none: an older one there says nothing of this model. A model for the
    Model API there was made of an older one, and goes too.
    """
    result, other = metadata.get("gate"), model_api_path(path)
    text = None if result is None else report_text(result)
    return {report_path(path): text, other: None, other.with_suffix(".bin"): None}


def report_text(result: Mapping[str, Any]) -> str:
    """Return the plain data of a gate's result as it is written."""
    return json.dumps(result, indent=1) + "\n"
