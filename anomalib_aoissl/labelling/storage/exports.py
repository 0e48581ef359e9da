# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Where the page's exports are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

EXPORTS = "export"
"""Folder of the exports, below the labelled one; each has a folder named by its time."""

LAST_FILE = "README.txt"
"""What is written last: an export without it was interrupted."""


@dataclass(frozen=True)
class Exported:
    """What an export wrote.

    Attributes:
        folder: Where it is.
        model: The OpenVINO model; None where OpenVINO is not installed.
        note: What else to say.
    """

    folder: Path
    model: Path | None
    note: str = ""


def exported_in(folder: Path, note: str = "") -> Exported:
    """Return what the export in a folder wrote."""
    model = folder / "weights" / "openvino" / "model.xml"
    return Exported(folder, model if model.is_file() else None, note)


def last_export(root: Path) -> Exported | None:
    """Return the newest whole export of a labelled folder; None where there is none."""
    whole = sorted(path.parent for path in (root / EXPORTS).glob(f"*/{LAST_FILE}"))
    return exported_in(whole[-1]) if whole else None
