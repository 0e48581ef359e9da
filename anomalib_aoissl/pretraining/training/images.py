# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The pictures that pretraining sees: their files, and random crops where the structure is. Masks are never read."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from torch.utils.data import Dataset

from anomalib_aoissl.data.describing.file_format import WHOLE_FILES, FileFormat
from anomalib_aoissl.data.errors import DatasetError
from anomalib_aoissl.data.finding.listing import list_records

from .augmentation import Crops, structure_weights

ImageFiles = tuple[Path, ...]
"""The files of one item, one for each lighting channel."""

_BLOCK = 1 << 20  # bytes read at once for a fingerprint


def pretraining_images(datamodule: object) -> list[ImageFiles]:
    """Return the files of each item to pretrain on: those of ``unlabelled_dir``, else the training images.

    Raises:
        DatasetError: If the datamodule has neither, or the folder is missing or empty.
    """
    folder = getattr(datamodule, "unlabelled_dir", None)
    if folder is not None:
        description = getattr(datamodule, "description", None)
        suffixes = getattr(datamodule, "lighting_channels", None)
        suffixes = getattr(description, "lighting_channels", ()) if suffixes is None else suffixes
        return [record.image_paths for record in list_records(Path(folder), None, lighting_channels=suffixes or ())]
    samples = getattr(getattr(datamodule, "train_data", None), "samples", None)
    if samples is None or not len(samples):
        msg = (
            f"Pretraining found no images: {type(datamodule).__name__} has no unlabelled_dir and no train_data with "
            "samples. Give the datamodule unlabelled_dir=/path/to/pictures, or training images."
        )
        raise DatasetError(msg)
    column = "channel_paths" if "channel_paths" in samples else "image_path"
    values = samples[column].tolist()
    return [tuple(Path(p) for p in ((value,) if isinstance(value, str | Path) else value)) for value in values]


def fingerprint(images: Sequence[ImageFiles]) -> str:
    """Return a hash of the items' files: names, sizes and contents; the folder that they lie in does not count."""
    digest = hashlib.blake2b(digest_size=16)
    for files in images:
        digest.update(f"{len(files)};".encode())
        for path in files:
            digest.update(f"{path.name}:{path.stat().st_size};".encode())
            with path.open("rb") as file:
                while block := file.read(_BLOCK):  # whole: pictures under a back light have white ends alike
                    digest.update(block)
    return digest.hexdigest()


def read_planes(
    files: ImageFiles, size: tuple[int, int] | None, channels: int, file_format: FileFormat = WHOLE_FILES
) -> torch.Tensor:
    """Return an item as uint8 planes ``[C, H, W]`` of the given size (height, width) in px; None for its own.

    Raises:
        DatasetError: If the files cannot be read, or have another number of planes than the encoder takes.
    """
    image = torch.from_numpy(file_format.read_files(files))
    if len(image) != channels:
        msg = (
            f"{files[0]}: has {len(image)} planes, but the encoder takes in_channels={channels}. Set in_channels to "
            "the number of planes (3 for colour and for one to three lighting channels), or mend the image."
        )
        raise DatasetError(msg)
    if size is not None:
        image = functional.interpolate(image[None], size, mode="bilinear", antialias=True)[0]
    return (image.clamp(0, 1) * 255).round().to(torch.uint8)


class CropDataset(Dataset[dict[str, torch.Tensor]]):
    """Random crops of pictures, the same for the same seed, epoch and index.

    Pictures are kept in memory once they are decoded, as uint8 at the size that they are cropped at, as long as they
    fit the budget; the others are decoded each time.

    Args:
        images: Files of each item.
        size: (height, width) that a picture is resized to before it is cropped, px; None for its own.
        channels: Planes of a picture.
        crops: What is cut from a picture.
        crops_per_image: Samples that one picture gives in an epoch.
        seed: Seed of the crops.
        file_format: How the files of an item are read.
        memory_mb: Budget for decoded pictures, MB, of each process that reads; 0 keeps none.
    """

    def __init__(
        self,
        images: Sequence[ImageFiles],
        *,
        size: tuple[int, int] | None,
        channels: int,
        crops: Crops,
        crops_per_image: int = 1,
        seed: int = 0,
        file_format: FileFormat = WHOLE_FILES,
        memory_mb: float = 2048,
    ) -> None:
        self.images = list(images)
        self.size = size
        self.channels = channels
        self.crops = crops
        self.crops_per_image = crops_per_image
        self.seed = seed
        self.file_format = file_format
        self._free_bytes = memory_mb * 1e6
        self._memory: dict[int, tuple[torch.Tensor, Any]] = {}

    def __len__(self) -> int:
        return len(self.images) * self.crops_per_image

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """Return the views of one sample by name, uint8 ``[V, C, h, w]``.

        ``index`` counts on over the epochs, ``epoch * len(self) + item``: a worker that lives through all of them, and
        keeps what it decoded, need not be told when one begins.
        """
        epoch, index = divmod(index, len(self))
        generator = torch.Generator().manual_seed(hash((self.seed, epoch, index)) & (2**63 - 1))
        image, weights = self._picture(index % len(self.images))
        return self.crops(image, weights, generator)

    def _picture(self, index: int) -> tuple[torch.Tensor, Any]:
        """Return the decoded picture ``[C, H, W]`` and where its structure is."""
        if index in self._memory:
            return self._memory[index]
        image = read_planes(self.images[index], self.size, self.channels, self.file_format)
        entry = (image, structure_weights(image))
        if image.numel() <= self._free_bytes:
            self._free_bytes -= image.numel()
            self._memory[index] = entry
        return entry
