# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What an exported model says of itself; needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomalib_aoissl.data.describing.file_format import FileFormat
from anomalib_aoissl.data.quality.picture_quality import LabelledQuality

from .abstaining import AbstentionFormat
from .graph.bank import NotEditableError, check_bank, read_metadata
from .tiles.tiling import Tiling

if TYPE_CHECKING:
    import openvino


def checked_metadata(model: openvino.Model, path: str | Path) -> dict[str, Any]:
    """Return what a model that was read from a file says of itself, and of its bank.

    Raises:
        ValueError: If it says nothing, or something that cannot be.
    """
    try:
        metadata = read_metadata(model)
        if metadata:
            check_bank(model)
            FileFormat.from_dict(metadata.get("file_format", {}))
            abstention_of(metadata)
            Tiling.of(metadata.get("tiling"))
            quality_of(metadata)
        names = metadata.get("class_names") or ()
        known = len(names) > 0 and all(isinstance(name, str) for name in names)
    except NotEditableError as error:
        msg = f"{path}: {error}"
        raise NotEditableError(msg) from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        msg = f"{path}: what the model says of itself is damaged ({error!r}). Restore a copy, or export it again."
        raise ValueError(msg) from error
    if not known:
        msg = f"{path}: carries no class names. Export it again with this plugin's models (anomalib export)."
        raise ValueError(msg)
    return metadata


def abstention_of(metadata: dict[str, Any]) -> AbstentionFormat | None:
    """Return how the model abstains; None where it cannot."""
    content = metadata.get("abstention")
    return None if content is None else AbstentionFormat.from_dict(content)


def quality_of(metadata: Mapping[str, Any]) -> LabelledQuality | None:
    """Return what the model's labelled pictures are like; None where it does not say."""
    content = metadata.get("quality")
    return None if content is None else LabelledQuality.from_dict(content)


def labelled_of(metadata: Mapping[str, Any]) -> tuple[LabelledQuality | None, float | None]:
    """Return what the model's labelled pictures are like, and their mean novelty; None where it does not say."""
    return quality_of(metadata), (metadata.get("bank") or {}).get("own_novelty")  # None: it cannot be edited
