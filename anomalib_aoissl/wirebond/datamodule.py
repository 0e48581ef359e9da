# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""`WireBond`: the demonstration set, drawn on first use, so that everything runs offline."""

from __future__ import annotations

import zlib
from pathlib import Path

from anomalib.data import AnomalibDataModule
from torchvision.transforms.v2 import Transform

from anomalib_aoissl.data.argument_rules import DATA_RULES, OF_ANOMALIB, validate_data
from anomalib_aoissl.data.datamodule import SegmentationDataModuleMixin
from anomalib_aoissl.data.describing.description import DatasetDescription, read_description
from anomalib_aoissl.data.finding.splitting import Splits, check_devices
from anomalib_aoissl.plugin.arguments import PATH, Rule, whole
from anomalib_aoissl.wirebond.drawing.rendering import DRAWING_RULES

from .drawing import DEVICES, GENERATOR_VERSION, write_images

RULES: dict[str, Rule] = {
    **DATA_RULES,
    "root": PATH,
    "images_per_device": whole("[1, inf)"),
    "image_size": DRAWING_RULES["size"],
    "difficulty": DRAWING_RULES["difficulty"],
    "lot": DRAWING_RULES["lot"],
}
"""What the arguments of `WireBond` may be."""


class WireBond(SegmentationDataModuleMixin, AnomalibDataModule):
    """Wire-bonded devices under two lights, drawn from a seed: background, wire, ball, wedge, epoxy.

    The same arguments give the same pictures. They are written once, below ``root`` in a folder named by the
    arguments that decide their content, as `SegmentationFolder` reads them. Without ``train_devices`` and
    ``test_devices``, other images of the same devices are tested; with one of them, devices that were not trained on.

    Args:
        root: Folder for the pictures.
        devices: Use only these device types; default: all.
        train_devices: Devices to train on; default: all that are in neither of the other lists.
        val_devices: Devices to validate on; default: ``val_ratio`` of the training devices' images.
        test_devices: Devices to test on; default: all that are in neither of the other lists.
        shots: Labelled images to train on for each device, drawn with the seed; default: all.
        foreground: Classes that become one, "foreground", for models that know one; all others become background.
        images_per_device: Images drawn of each device type.
        val_ratio: Share of the images for validation, in [0, 1).
        test_ratio: Share of the images for testing where no devices are named, in [0, 1).
        image_size: (height, width) of the pictures, px; wires are 2 to 6 px wide at 512.
        difficulty: 0 (clean) to 1 (noise, defocus, dust, scratches, crossing wires).
        lot: Production lot; 0 is the nominal one, others have another light, material and texture.
        seed: Seed of the pictures, the splits and the shots.
        train_batch_size: Images in a training batch.
        eval_batch_size: Images in a validation or test batch.
        num_workers: Processes that read images.
        train_augmentations: Torchvision v2 transform of training images and masks.
        val_augmentations: Torchvision v2 transform of validation images and masks.
        test_augmentations: Torchvision v2 transform of test images and masks.
        augmentations: Torchvision v2 transform where none of the three is given.

    Raises:
        DatasetError: At setup, if a device does not exist or stands on two sides, or a ratio leaves a split empty.
        ArgumentError: If an argument is out of its range.
    """

    def __init__(
        self,
        root: Path | str = "./datasets/WireBond",
        devices: list[str] | None = None,
        train_devices: list[str] | None = None,
        val_devices: list[str] | None = None,
        test_devices: list[str] | None = None,
        shots: int | None = None,
        foreground: list[str] | None = None,
        images_per_device: int = 6,
        val_ratio: float = 0.17,
        test_ratio: float = 0.5,
        image_size: tuple[int, int] = (512, 512),
        difficulty: float = 0.5,
        lot: int = 0,
        seed: int = 0,
        train_batch_size: int = 4,
        eval_batch_size: int = 4,
        num_workers: int = 2,
        train_augmentations: Transform | None = None,
        val_augmentations: Transform | None = None,
        test_augmentations: Transform | None = None,
        augmentations: Transform | None = None,
    ) -> None:
        given = locals()
        validate_data(RULES, given)
        super().__init__(**{name: given[name] for name in OF_ANOMALIB})
        self._keep(given)
        self.images_per_device = images_per_device
        self.image_size = (image_size[0], image_size[1])
        self.difficulty = float(difficulty)
        self.lot = lot
        self.root = Path(root) / self._folder_name()

    def prepare_data(self) -> None:
        """Draw the pictures that are not on disk yet; a run that was stopped goes on where it was.

        Raises:
            DatasetError: If a device does not exist.
        """
        check_devices(self.devices or (), sorted(DEVICES), "devices")
        write_images(
            self.root,
            devices=self.devices,
            units=self.images_per_device,
            seed=self.seed or 0,
            lot=self.lot,
            size=self.image_size,
            difficulty=self.difficulty,
        )

    def load_splits(self) -> tuple[DatasetDescription, Splits]:
        """Return the description and the records of each split."""
        self.prepare_data()
        self.description = description = read_description(self.root)
        return description, self._flat_splits(description)

    def _folder_name(self) -> str:
        """Return a name that tells sets with other pictures apart."""
        height, width = self.image_size
        name = (
            f"v{GENERATOR_VERSION}_seed{self.seed}_lot{self.lot}_{height}x{width}"
            f"_difficulty{self.difficulty:g}_units{self.images_per_device}"
        )
        chosen = "" if self.devices is None else f"_{zlib.crc32(' '.join(sorted(self.devices)).encode()):08x}"
        return name + chosen
