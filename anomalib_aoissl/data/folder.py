# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""`SegmentationFolder`: one's own images and class-index masks, split by folders, by ratio or by device."""

from __future__ import annotations

from pathlib import Path

from anomalib.data import AnomalibDataModule
from torchvision.transforms.v2 import Transform

from anomalib_aoissl.plugin.removed_arguments import had_arguments

from .argument_rules import FOLDER_RULES, OF_ANOMALIB, validate_data
from .datamodule import SegmentationDataModuleMixin
from .describing.description import DatasetDescription, read_description
from .describing.file_format import OLD_NAMES
from .errors import DatasetError
from .finding.checking import check_training_masks
from .finding.folders import say
from .finding.splitting import SPLIT_NAMES, Splits, select_devices, take_shots
from .label_formats.cache import as_masks


@had_arguments(moved=OLD_NAMES)
class SegmentationFolder(SegmentationDataModuleMixin, AnomalibDataModule):
    """Images and class-index masks in folders, or what a labelling tool exported.

    An export in one of the formats of ``data/label_formats`` is converted below ``./datasets`` first.
    Three layouts: ``root/{train,val,test}/{images,masks}`` is taken as it is; a flat ``root/{images,masks}`` is split
    by device where ``train_devices`` or ``test_devices`` is given, and by ratio, device for device, where not. An
    image and its mask have the same name. The class names come from ``classes``, ``root/dataset.json`` or
    ``root/classes.txt``.

    Args:
        root: Folder of the dataset.
        classes: Names of the classes in the order of their indices, background first.
        lighting_channels: Suffixes of an item's lighting channels, such as ["_ch0", "_ch1"]; default: what
            dataset.json says, else one file is one item.
        bit_depth: Bits that the camera uses of a 16-bit file, 8 to 16; default: all 16.
        device_pattern: Regular expression searched in an image's name; its first group names the device. Default:
            ``groups`` of dataset.json, else the image's sub-folder.
        devices: Use only these devices' images.
        train_devices: Devices to train on; default: all that are in neither of the other lists.
        val_devices: Devices to validate on; default: ``val_ratio`` of the training devices' images.
        test_devices: Devices to test on; default: all that are in neither of the other lists.
        shots: Labelled images to train on for each device, drawn with the seed; default: all.
        foreground: Classes that become one, "foreground", for models that know one; all others become background.
        val_ratio: Share of the images for validation, in [0, 1).
        test_ratio: Share of the images for testing where no devices are named, in [0, 1).
        unlabelled_dir: Folder of further pictures without masks, for pretraining; relative to ``root`` or absolute.
        train_batch_size: Images in a training batch.
        eval_batch_size: Images in a validation or test batch.
        num_workers: Processes that read images.
        train_augmentations: Torchvision v2 transform of training images and masks.
        val_augmentations: Torchvision v2 transform of validation images and masks.
        test_augmentations: Torchvision v2 transform of test images and masks.
        augmentations: Torchvision v2 transform where none of the three is given.
        seed: Seed of the splits and shots.

    Raises:
        ArgumentError: If an argument is out of its range.
        DatasetError: At setup, if the files are at fault. The message names the file, and what was expected.
    """

    def __init__(
        self,
        root: Path | str,
        classes: list[str] | None = None,
        lighting_channels: list[str] | None = None,
        bit_depth: int | None = None,
        device_pattern: str | None = None,
        devices: list[str] | None = None,
        train_devices: list[str] | None = None,
        val_devices: list[str] | None = None,
        test_devices: list[str] | None = None,
        shots: int | None = None,
        foreground: list[str] | None = None,
        val_ratio: float = 0.1,
        test_ratio: float = 0.3,
        unlabelled_dir: Path | str | None = None,
        train_batch_size: int = 4,
        eval_batch_size: int = 4,
        num_workers: int = 2,
        train_augmentations: Transform | None = None,
        val_augmentations: Transform | None = None,
        test_augmentations: Transform | None = None,
        augmentations: Transform | None = None,
        seed: int = 0,
    ) -> None:
        given = locals()
        validate_data(FOLDER_RULES, given)
        super().__init__(**{name: given[name] for name in OF_ANOMALIB})
        self._keep(given)
        self.root = Path(root)
        self.classes = classes
        self.lighting_channels = lighting_channels
        self.bit_depth = bit_depth
        self.device_pattern = device_pattern
        self.unlabelled_dir = None if unlabelled_dir is None else self.root / unlabelled_dir

    def load_splits(self) -> tuple[DatasetDescription, Splits]:
        """Return the description and the records of each split."""
        self.root = as_masks(self.root, self.classes, self.lighting_channels or ())
        self.description = description = read_description(self.root, self.classes)
        if self.unlabelled_dir is not None and not self.unlabelled_dir.is_dir():
            msg = f"unlabelled_dir={self.unlabelled_dir}: the folder does not exist."
            raise DatasetError(msg)
        nested = (self.root / "train" / "images").is_dir()
        splits = self._nested_splits(description) if nested else self._flat_splits(description)
        return description, splits

    def _nested_splits(self, description: DatasetDescription) -> Splits:
        """Return the splits of ``root/{train,val,test}/{images,masks}``; without val, none is made."""
        named = [n for n in ("train_devices", "val_devices", "test_devices") if getattr(self, n) is not None]
        if named:
            msg = (
                f"{self.root}: holds train/ and test/ folders, which are the splits; {', '.join(named)} would split "
                "again. Leave them out (devices= chooses among the images), or use a flat images/ and masks/ folder."
            )
            raise DatasetError(msg)
        parts = {
            name: self._records(self.root / name, description) if (self.root / name).is_dir() else []
            for name in SPLIT_NAMES
        }
        every = [record for records in parts.values() for record in records]
        self._check_groups(description, every)
        others = [p.name for p in sorted(self.root.iterdir()) if p.name == "images" or (p / "images").is_dir()]
        say(f"folders of {self.root} are no split (train, val, test) and are left out", set(others) - set(parts))
        parts = {name: select_devices(records, self.devices, every) for name, records in parts.items()}
        check_training_masks(parts["train"], self.root / "train" / "masks")
        return Splits(take_shots(parts["train"], self.shots, self.seed or 0), parts["val"], parts["test"])
