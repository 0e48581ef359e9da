# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Says before training which masks are probably wrong: those of another picture, inverted, or contradicting a copy's.

Right masks of photographs had a suspicion of at most 0.75 (wire bonds), 0.95 (boards) and 1.18 (rolled steel). Masks of
another picture have more, but how much more depends on how sharp the borders are. So the limit follows the median. Of
two swapped masks among six of these sets, one or both were found in 99, 26 and 75 of 100 draws; no right mask was.
"""

from __future__ import annotations

import filecmp
import logging
from collections.abc import Sequence

import numpy as np

from ..describing.description import DatasetDescription
from ..describing.file_format import FileFormat
from ..finding.checking import beginning, each
from ..finding.folders import say
from ..finding.listing import Record
from ..indices import IGNORE_INDEX
from .suspicion import MaskSuspicion, look_at, ranked

logger = logging.getLogger(__name__)

_LOOKED_AT = 64
"""Pictures that are looked at, evenly over all: each takes some 50 ms."""

_OF_MEDIAN, _LOWEST, _HIGHEST = 1.5, 1.0, 1.2
_SHOWN = 5


def say_wrong_masks(records: Sequence[Record], description: DatasetDescription, file_format: FileFormat) -> None:
    """Log one line on each training mask that is probably wrong, and one on copies with different masks."""

    def look(record: Record) -> MaskSuspicion:
        assert record.mask_path is not None  # noqa: S101 - for the type checker; each training picture has one
        mask = description.read_mask(record.mask_path)
        return look_at(record.image_paths[0], file_format.read_files(record.image_paths), mask)

    records = sorted(records, key=lambda record: record.image_paths)
    suspects = suspicious(each(look, records[:: -(-len(records) // _LOOKED_AT)]))
    for entry in suspects[:_SHOWN]:
        logger.warning(
            "%s: its mask is probably wrong, it %s (suspicion %.2f). Look whether it is the mask of this picture.",
            entry.path,
            entry.reason,
            entry.suspicion,
        )
    say("further masks are probably wrong", [entry.path for entry in suspects[_SHOWN:]])
    say("training pictures have copies with other masks, so that one is wrong", _contradicting(records, description))


def suspicious(found: Sequence[MaskSuspicion]) -> list[MaskSuspicion]:
    """Return those whose suspicion is above the limit: 1.5 times the median of all, but 1 at least and 1.2 at most."""
    if not found:
        return []
    usual = float(np.median([entry.suspicion for entry in found]))
    limit = min(max(_OF_MEDIAN * usual, _LOWEST), _HIGHEST)
    return [entry for entry in ranked(found) if entry.suspicion > limit]


def _contradicting(records: Sequence[Record], description: DatasetDescription) -> list[str]:
    """Return the masks of pictures whose files are equal where two classes stand at one place, as "a and b"."""
    alike: dict[tuple[int, bytes], list[Record]] = {}
    found = []
    for begins, record in zip(each(beginning, records), records, strict=True):
        others = alike.setdefault(begins, [])
        other = next((other for other in others if _is_copy(record, other)), None)
        if other is None:
            others.append(record)
        elif _differ(record, other, description):
            found.append(f"{other.mask_path} and {record.mask_path}")
    return found


def _is_copy(record: Record, other: Record) -> bool:
    """Tell whether all files of two items are equal."""
    pairs = zip(record.image_paths, other.image_paths, strict=True)
    return all(filecmp.cmp(mine, theirs, shallow=False) for mine, theirs in pairs)


def _differ(record: Record, other: Record, description: DatasetDescription) -> bool:
    """Tell whether two masks of one size name two classes at one place; ignored pixels name none."""
    mine, theirs = (description.read_mask(entry.mask_path) for entry in (record, other) if entry.mask_path is not None)
    return bool(((mine != theirs) & (mine != IGNORE_INDEX) & (theirs != IGNORE_INDEX)).any())
