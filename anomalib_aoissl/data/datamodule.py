# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What the datamodules share: records become datasets, and anomalib's label-based splitting stays out of it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomalib_aoissl.plugin.removed_arguments import renamed_attribute

from .argument_rules import DATA_RULES, OF_ANOMALIB
from .dataset import SegmentationDataset
from .describing.description import DESCRIPTION_NAME, DatasetDescription
from .describing.file_format import FileFormat
from .finding.checking import check_splits, check_training_masks
from .finding.listing import Record, check_groups, list_records
from .finding.splitting import SPLIT_NAMES, Splits, select_devices, split_by_device, split_by_ratio, take_shots
from .labels.suspecting import say_wrong_masks

if TYPE_CHECKING:
    from anomalib.data import AnomalibDataModule as _Base
    from torch.utils.data import DataLoader
else:
    _Base = object  # mixed in before AnomalibDataModule, whose direct child the datamodule must be


class SegmentationDataModuleMixin(_Base):
    """Records to train, val and test data.

    A mixin, since anomalib finds only direct children of its datamodule. A datamodule mixes it in before
    ``AnomalibDataModule`` and defines `load_splits`.
    """

    lighting_channels: list[str] | None = None
    illuminations = renamed_attribute("illuminations", "lighting_channels")
    bit_depth: int | None = None
    foreground: list[str] | None = None
    unlabelled_dir: Path | None = None
    description: DatasetDescription | None = None
    device_pattern: str | None = None
    root: Path
    devices: list[str] | None
    train_devices: list[str] | None
    val_devices: list[str] | None
    test_devices: list[str] | None
    shots: int | None
    val_ratio: float
    test_ratio: float
    seed: int | None
    val_data: SegmentationDataset
    test_data: SegmentationDataset
    _masks_were_looked_at = False

    @abstractmethod
    def load_splits(self) -> tuple[DatasetDescription, Splits]:
        """Return the description and the records of each split; called once, before training."""

    def split(self, records: Sequence[Record]) -> Splits:
        """Return the records by device where train or test devices are named, and by ratio where not."""
        seed = self.seed or 0
        if self.train_devices is None and self.test_devices is None:
            return split_by_ratio(
                records,
                val_ratio=self.val_ratio,
                test_ratio=self.test_ratio,
                seed=seed,
                val_devices=self.val_devices,
            )
        return split_by_device(
            records,
            train_devices=self.train_devices,
            val_devices=self.val_devices,
            test_devices=self.test_devices,
            val_ratio=self.val_ratio,
            seed=seed,
        )

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, background first; the datamodule is set up if it was not.

        Raises:
            DatasetError: If the files of the dataset are at fault.
        """
        if not hasattr(self, "test_data"):
            self._setup()
        return self.test_data.class_names

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Suffixes of the files that make one item: the argument, else what the dataset says of itself."""
        if self.lighting_channels is not None:
            return tuple(self.lighting_channels)
        return self.description.lighting_channels if self.description is not None else ()

    def _keep(self, given: Mapping[str, Any]) -> None:
        """Keep the arguments that all datamodules take; anomalib keeps its own."""
        for name in DATA_RULES.keys() - OF_ANOMALIB:
            setattr(self, name, given[name])

    def _records(self, folder: Path, description: DatasetDescription) -> list[Record]:
        """Return the records of ``folder/{images,masks}``."""
        return list_records(
            folder / "images",
            folder / "masks",
            lighting_channels=self.suffixes,
            groups=description.groups,
            device_pattern=self.device_pattern,
        )

    def _flat_splits(self, description: DatasetDescription) -> Splits:
        """Return the splits of ``root/{images,masks}``, by device or by ratio."""
        records = self._records(self.root, description)
        self._check_groups(description, records)
        splits = self.split(select_devices(records, self.devices))
        check_training_masks(splits.train, self.root / "masks")
        return Splits(take_shots(splits.train, self.shots, self.seed or 0), splits.val, splits.test)

    def _check_groups(self, description: DatasetDescription, records: Sequence[Record]) -> None:
        """Validate the groups of dataset.json, where devices come from them."""
        if self.device_pattern is None:
            check_groups(description.groups, records, self.root / DESCRIPTION_NAME)

    def _setup(self, stage: str | None = None) -> None:
        """Make the datasets of the splits; before a fit, say once which training masks are probably wrong."""
        self.description, splits = self.load_splits()
        file_format = check_splits(splits, self.description, FileFormat(self.suffixes, self.bit_depth))
        if stage in (None, "fit") and not self._masks_were_looked_at:
            say_wrong_masks(splits.train, self.description, file_format)
            self._masks_were_looked_at = True
        for name in SPLIT_NAMES:
            records = getattr(splits, name)
            data = SegmentationDataset(
                records, self.description, name, file_format=file_format, foreground=self.foreground
            )
            setattr(self, f"{name}_data", data)

    def _create_test_split(self) -> None:
        """Keep the test split as it is: anomalib would take out the images that it calls normal."""

    def _create_val_split(self) -> None:
        """Keep the validation split as it is."""

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Return the validation loader; empty where no image is left for validation."""
        return super().val_dataloader() if len(self.val_data) else []  # type: ignore[misc]
