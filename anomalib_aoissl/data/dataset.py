# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The dataset that reads records from disk as segmentation items."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pandas as pd
import torch
from anomalib import TaskType
from anomalib.data import AnomalibDataset
from anomalib.data.utils import LabelName
from torchvision.tv_tensors import Image, Mask

from .describing.description import DatasetDescription
from .describing.file_format import WHOLE_FILES, FileFormat
from .describing.mask_format import MaskFormat, foreground_lookup
from .finding.listing import Record
from .indices import BACKGROUND_INDEX, IGNORE_INDEX
from .items import SegmentationBatch, SegmentationItem

FOREGROUND_CLASSES = ("background", "foreground")
"""Names of the classes where chosen ones are merged."""


class SegmentationDataset(AnomalibDataset):
    """Images with class-index masks, one item for each record.

    Args:
        records: The items on disk.
        description: Class names and how the masks are coded.
        split: "train", "val" or "test".
        file_format: How the files of an item are read.
        foreground: Classes that become one, "foreground"; all others become background. None keeps the classes.
    """

    def __init__(
        self,
        records: Sequence[Record],
        description: DatasetDescription,
        split: str,
        *,
        file_format: FileFormat = WHOLE_FILES,
        foreground: Sequence[str] | None = None,
    ) -> None:
        super().__init__()  # the datamodule sets what augments
        self.description = description
        self.foreground = None if foreground is None else tuple(foreground)
        if foreground is not None:
            foreground_lookup(description.classes, foreground)  # said before a file is read
        self.file_format = replace(file_format, masks=self.mask_format)
        self.samples = _table(records, split)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, background first."""
        return self.description.classes if self.foreground is None else FOREGROUND_CLASSES

    @property
    def mask_format(self) -> MaskFormat:
        """How the mask files are coded."""
        merged = self.foreground is not None
        classes = self.description.classes if merged else ()
        return MaskFormat(self.description.ignore_index, self.description.colours, classes, self.foreground)

    @property
    def collate_fn(self) -> Callable[[list[SegmentationItem]], SegmentationBatch]:
        """The function that makes a batch of items."""
        return SegmentationBatch.collate

    def __getitem__(self, index: int) -> SegmentationItem:
        """Return one item, augmented; an item without a mask has none, and no label."""
        sample = self.samples.iloc[index]
        image: torch.Tensor = Image(torch.from_numpy(self.file_format.read_files(sample.channel_paths)))
        mask = self._mask(sample.mask_path)
        if self.augmentations:
            image, mask = self.augmentations(image, mask) if mask is not None else (self.augmentations(image), None)
        return SegmentationItem(
            image=image,
            gt_mask=mask,
            gt_label=None if mask is None else has_foreground(mask),
            image_path=sample.image_path,
            mask_path=sample.mask_path or None,
            device_name=sample.device_name,
        )

    def _mask(self, path: str) -> torch.Tensor | None:
        """Return the class-index mask, or None where the item has none."""
        if not path:
            return None
        return Mask(torch.from_numpy(self.mask_format.read(path, len(self.class_names))))


def has_foreground(mask: torch.Tensor) -> torch.Tensor:
    """Return a boolean scalar: whether any pixel of the mask is of a class other than background and ignore."""
    return ((mask != BACKGROUND_INDEX) & (mask != IGNORE_INDEX)).any()


def _table(records: Sequence[Record], split: str) -> pd.DataFrame:
    """Return anomalib's table of samples, with the lighting channels and the device beside its own columns."""
    rows = [
        {
            "image_path": str(record.image_paths[0]),
            "channel_paths": tuple(str(path) for path in record.image_paths),
            "mask_path": str(record.mask_path) if record.mask_path is not None else "",
            "label_index": int(LabelName.ABNORMAL if record.mask_path is not None else LabelName.UNKNOWN),
            "device_name": record.device,
            "split": split,
        }
        for record in records
    ]
    columns = ["image_path", "channel_paths", "mask_path", "label_index", "device_name", "split"]
    table = pd.DataFrame(rows, columns=columns)
    table.attrs["task"] = TaskType.SEGMENTATION.value
    return table
