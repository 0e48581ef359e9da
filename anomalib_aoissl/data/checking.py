# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What can be known of a dataset's files before training starts."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from .description import DatasetDescription
from .errors import DatasetError
from .indices import IGNORE_INDEX
from .listing import Record
from .reading import image_size, read_illuminations, read_mask
from .splitting import Splits


def check_splits(splits: Splits, description: DatasetDescription, bit_depth: int | None) -> None:
    """Raise the first fault in the files of the splits.

    Training files are decoded whole, since a fault there would spoil what is learnt; of the others the masks are
    decoded, and of the images the headers.

    Raises:
        DatasetError: For an empty split, a missing mask in training, a mask of another size than its image, an index
            without a class, illuminations of different sizes, an unreadable file, or training masks without a class.
    """
    for name, records in (("train", splits.train), ("test", splits.test)):
        if not records:
            msg = f"The {name} split is empty. Change the devices, the ratios or the folders so that it has images."
            raise DatasetError(msg)
    seen = _check_masks(splits.train, description)
    _check_labels(seen, splits.train)
    _check_masks([*splits.val, *splits.test], description)
    for record in splits.train:
        read_illuminations(record.image_paths, bit_depth)


def check_training_masks(records: Iterable[Record], folder: object) -> None:
    """Refuse a training image without a mask.

    Raises:
        DatasetError: Naming the image and where its mask was expected.
    """
    for record in records:
        if record.mask_path is None:
            msg = (
                f"{record.image_paths[0]}: has no mask; {folder}/{record.stem}.png was expected. Draw it, or move the "
                "image to the folder that unlabelled_dir names."
            )
            raise DatasetError(msg)


def _check_masks(records: Iterable[Record], description: DatasetDescription) -> np.ndarray:
    """Return how many pixels each value 0..255 has, after checking each item's sizes and indices."""
    counts = np.zeros(256, dtype=np.int64)
    for record in records:
        size = _one_size(record)
        if record.mask_path is None:
            continue
        mask = read_mask(
            record.mask_path,
            num_classes=len(description.classes),
            ignore_index=description.ignore_index,
            colours=description.colours,
        )
        if mask.shape != size:
            msg = (
                f"{record.mask_path}: the mask has {mask.shape[0]}x{mask.shape[1]} px (height x width), its image "
                f"{record.image_paths[0].name} has {size[0]}x{size[1]}; they must be equal."
            )
            raise DatasetError(msg)
        counts += np.bincount(mask.ravel(), minlength=256)
    return counts


def _one_size(record: Record) -> tuple[int, int]:
    """Return the size of the item, in px, after checking that its illuminations agree."""
    first, *others = record.image_paths
    size = image_size(first)
    for path in others:
        if image_size(path) != size:
            height, width = image_size(path)
            msg = f"{path}: has {height}x{width} px, but {first.name} of the same item has {size[0]}x{size[1]}."
            raise DatasetError(msg)
    return size


def _check_labels(counts: np.ndarray, records: Iterable[Record]) -> None:
    """Refuse training masks that name no foreground class, the mark of masks written as 0 and 255."""
    if counts[1:IGNORE_INDEX].any():
        return
    example = next(record.mask_path for record in records if record.mask_path is not None)
    reason = (
        "they hold only 0 (background) and 255 (ignore); write the class as 1"
        if counts[IGNORE_INDEX]
        else "they hold only background"
    )
    msg = f"{example}: no training mask has a foreground class: {reason}."
    raise DatasetError(msg)
