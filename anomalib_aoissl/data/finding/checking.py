# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What can be known of a dataset's files before training starts."""

from __future__ import annotations

import filecmp
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..describing.description import DatasetDescription
from ..describing.file_format import FileFormat
from ..errors import DatasetError
from ..indices import IGNORE_INDEX
from ..reading import check_one_size, image_size, is_grey, orientation_of, read_image, turn_shows_in_size
from .folders import say
from .listing import Record
from .splitting import Splits

_THREADS = 4  # decoders let other threads run

_BEGINNING = 65536
"""Bytes by which files are taken for copies, before they are compared whole."""


def check_splits(splits: Splits, description: DatasetDescription, file_format: FileFormat) -> FileFormat:
    """Return the file format with the planes of the training pictures, or raise the first fault in the splits' files.

    Every file is decoded, since a fault in a training file would spoil what is learnt, and one in a test file would
    be found after the training only.

    Raises:
        DatasetError: For an empty split, a missing mask in training, a test split without any mask, a mask of another
            size than its image, an index without a class, lighting channels of different sizes, an unreadable file, a
            picture with other planes than the training pictures, or training masks without a class.
    """
    for name, records in (("train", splits.train), ("test", splits.test)):
        if not records:
            msg = f"The {name} split is empty. Change the devices, the ratios or the folders so that it has images."
            raise DatasetError(msg)
    seen = _check_masks(splits.train, description)
    _check_labels(seen, splits.train)
    _check_masks(splits.val, description)
    tested = _check_masks(splits.test, description)
    _say_turned([*splits.train, *splits.val, *splits.test])
    _say_copies(splits)
    _check_measured(splits)
    if not tested[:IGNORE_INDEX].any():
        msg = f"{splits.test[0].mask_path}: the masks of the test ignore every pixel, so that nothing can be measured."
        raise DatasetError(msg)
    file_format = replace(file_format, planes=_common_planes(splits.train, file_format.bit_depth))
    # only the size is kept: a whole split of pictures would fill the memory
    each(lambda record: file_format.read_files(record.image_paths).shape, [*splits.val, *splits.test])
    return file_format


def each(act: Callable[[Record], Any], records: Sequence[Record]) -> list[Any]:
    """Return what ``act`` gives for each record, in order; files are decoded by several threads."""
    with ThreadPoolExecutor(_THREADS) as threads:
        return list(threads.map(act, records))


def _common_planes(records: Sequence[Record], bit_depth: int | None) -> tuple[int, ...]:
    """Return the planes of each lighting channel's files: of colours 1 where they are grey in all pictures, else 3.

    Raises:
        DatasetError: If a file cannot be read, or two files of one channel have another number of planes.
    """

    def look(record: Record) -> list[tuple[int, bool]]:
        images = [read_image(path, bit_depth) for path in record.image_paths]
        check_one_size(record.image_paths, images)
        return [(len(image), is_grey(image)) for image in images]

    looks = each(look, records)
    planes = []
    for channel, seen in enumerate(zip(*looks, strict=True)):
        counts = {count for count, _ in seen}
        if len(counts - {1, 3}) > 1 or (counts - {1, 3} and counts & {1, 3}):
            odd = next(index for index, (count, _) in enumerate(seen) if count != seen[0][0])
            msg = (
                f"{records[odd].image_paths[channel]}: has {seen[odd][0]} planes, but "
                f"{records[0].image_paths[channel].name} has {seen[0][0]}; all training pictures must have the same."
            )
            raise DatasetError(msg)
        largest = max(counts)
        grey = all(is_grey for _, is_grey in seen)
        planes.append(1 if largest == 3 and grey and len(looks[0]) > 1 else largest)
    return tuple(3 if count == 1 and len(planes) == 1 else count for count in planes)


def _check_measured(splits: Splits) -> None:
    """Validate that the test can measure something; pictures that it cannot measure are said in one line."""
    for name, records in (("validation", splits.val), ("test", splits.test)):
        without = [record for record in records if record.mask_path is None]
        if records and len(without) == len(records):
            msg = (
                f"{records[0].image_paths[0]}: has no mask. No {name} picture has one, so nothing can be measured. "
                "Draw masks, or use predict for these pictures."
            )
            raise DatasetError(msg)
        say(f"{name} pictures have no mask and are not measured", [str(record.image_paths[0]) for record in without])


def _say_turned(records: Sequence[Record]) -> None:
    """Say which masks may lie turned on their picture, though their size fits: the picture has an orientation tag."""

    def may_lie_turned(record: Record) -> bool:
        if record.mask_path is None or (tag := orientation_of(record.image_paths[0])) == 1:
            return False
        shows = turn_shows_in_size(tag, image_size(record.image_paths[0]))  # then a wrong mask does not fit
        return not shows and orientation_of(record.mask_path) != tag

    turned = each(may_lie_turned, records)
    found = [record.image_paths[0] for record, is_turned in zip(records, turned, strict=True) if is_turned]
    say("pictures are turned by their orientation tag; look whether their masks, which have none, lie on them", found)


def _say_copies(splits: Splits) -> None:
    """Say which pictures of validation and test are copies of training pictures: they measure what was learnt."""
    trained = {beginning(record): record.image_paths[0] for record in splits.train}
    for name, records in (("validation", splits.val), ("test", splits.test)):
        copies = []
        for begins, record in zip(each(beginning, records), records, strict=True):
            path, other = record.image_paths[0], trained.get(begins)
            if other is not None and filecmp.cmp(path, other, shallow=False):
                copies.append(f"{path} of {other}")
        say(f"{name} pictures are copies of training pictures, so that their figures are too good", copies)


def beginning(record: Record) -> tuple[int, bytes]:
    """Return the size and the first bytes of an item's first file: other pictures hardly ever share both."""
    path = record.image_paths[0]
    with path.open("rb") as file:
        return path.stat().st_size, file.read(_BEGINNING)


def check_training_masks(records: Iterable[Record], folder: Path) -> None:
    """Validate that each training image has a mask.

    Raises:
        DatasetError: Naming the image and where its mask was expected.
    """
    for record in records:
        if record.mask_path is None:
            msg = (
                f"{record.image_paths[0]}: has no mask; {folder}/{record.stem}.png was expected"
                f"{'' if folder.is_dir() else ', but that folder does not exist'}. Draw it, or move the image to the "
                "folder that unlabelled_dir names."
            )
            raise DatasetError(msg)


def _check_masks(records: Sequence[Record], description: DatasetDescription) -> np.ndarray:
    """Return how many pixels each value 0..255 has, after checking each item's sizes and indices."""

    def count(record: Record) -> np.ndarray:
        if record.mask_path is None:
            return np.zeros(256, dtype=np.int64)
        mask = description.read_mask(record.mask_path)
        size = image_size(record.image_paths[0])
        if mask.shape != size:
            turned = ""
            if mask.shape == size[::-1]:
                tagged = orientation_of(record.image_paths[0]) > 4
                turned = ", whose orientation tag turns it" if tagged else ": one of them is turned"
            msg = (
                f"{record.mask_path}: the mask has {mask.shape[0]}x{mask.shape[1]} px (height x width), its image "
                f"{record.image_paths[0].name} has {size[0]}x{size[1]}{turned}; they must be equal."
            )
            raise DatasetError(msg)
        return np.bincount(mask.ravel(), minlength=256)

    return np.sum([np.zeros(256, dtype=np.int64), *each(count, records)], axis=0)


def _check_labels(counts: np.ndarray, records: Iterable[Record]) -> None:
    """Validate that training masks name a foreground class: masks written as 0 and 255 name none."""
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
