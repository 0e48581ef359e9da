# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Classes of a label file to the indices of masks: renamed, merged, left out, in a given order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from anomalib_aoissl.data.describing.class_names import BACKGROUND, BACKGROUND_NAMES, parse_class_names
from anomalib_aoissl.data.errors import DatasetError
from anomalib_aoissl.data.indices import BACKGROUND_INDEX, IGNORE_INDEX

from .content import IGNORE_NAME


def map_classes(
    found: Sequence[str], renamed: Mapping[str, str] | None = None, classes: Sequence[str] | None = None
) -> tuple[tuple[str, ...], dict[str, int | None]]:
    """Return the class names, background first, and the index of each label; None where it is left out.

    Args:
        found: Labels of the export, in its order.
        renamed: New name of some of them. Several may get one name. "background" is 0, "ignore" is 255, an empty name
            leaves the shapes out.
        classes: The names in the order that the indices shall have; default: that of the export.

    Raises:
        DatasetError: If a renamed label does not exist, a name is not among the classes, or none is left.
    """
    renamed = dict(renamed or {})
    unknown = [label for label in renamed if label not in found]
    if unknown:
        msg = f"--map names {unknown[0]!r}, which is no label of the export. Its labels are {list(found)}."
        raise DatasetError(msg)
    names = {label: _known(renamed.get(label, label)) for label in found}
    wanted = [name for name in dict.fromkeys(names.values()) if name not in {"", BACKGROUND, IGNORE_NAME}]
    if classes is not None:
        listed = [name for name in classes if _known(name) not in {BACKGROUND, IGNORE_NAME}]
        missing = [name for name in wanted if name not in listed]
        if missing:
            msg = (
                f"--classes {list(classes)} leaves out the label {missing[0]!r} of the export. Add it, or say what it "
                f"is with --map {missing[0]}=NAME (background, ignore, or nothing to leave it out)."
            )
            raise DatasetError(msg)
        wanted = listed
    if not wanted:
        msg = f"The export has no class beside background; its labels are {list(found)}."
        raise DatasetError(msg)
    order = parse_class_names([BACKGROUND, *wanted], "The labels of the export")
    special = {"": None, BACKGROUND: BACKGROUND_INDEX, IGNORE_NAME: IGNORE_INDEX}
    return order, {label: special[name] if name in special else order.index(name) for label, name in names.items()}


def remapped(indices: np.ndarray, found: Sequence[str], lookup: Mapping[str, int | None]) -> np.ndarray:
    """Return a mask ``[H, W]`` uint8 of the export's indices with those that `map_classes` gave.

    The export's are 0 for background, from 1 on the labels in their order, and 255. Pixels of labels that are left
    out become background.
    """
    table = np.full(256, IGNORE_INDEX, dtype=np.uint8)
    table[0] = BACKGROUND_INDEX
    for index, label in enumerate(found, start=1):
        table[index] = lookup[label] or BACKGROUND_INDEX
    result: np.ndarray = table[indices]
    return result


def all_left_out(indices: np.ndarray, found: Sequence[str], lookup: Mapping[str, int | None]) -> bool:
    """Tell whether a mask ``[H, W]`` of the export's indices shows labels, but none that `map_classes` kept."""
    shown = np.unique(indices[indices != BACKGROUND_INDEX]).tolist()
    dropped = {index for index, label in enumerate(found, start=1) if lookup[label] is None}
    return bool(shown) and dropped.issuperset(shown)


def parse_renamed(entries: Sequence[str]) -> dict[str, str]:
    """Return the new names of the ``old=new`` texts of ``--map``.

    Raises:
        DatasetError: If one has another form, or an old name stands twice.
    """
    renamed: dict[str, str] = {}
    for entry in entries:
        old, sign, new = entry.rpartition("=")
        if not sign or not old.strip() or old.strip() in renamed:
            msg = f"--map {entry!r}: write OLD=NEW for each label once, such as 'gold wire=wire'."
            raise DatasetError(msg)
        renamed[old.strip()] = new.strip()
    return renamed


def _known(name: str) -> str:
    """Return a class name, one of the spellings of background as that."""
    return BACKGROUND if name.strip().lower() in BACKGROUND_NAMES else name.strip()
