# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Labelled images of a datamodule for the probe; test images are never touched."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from anomalib_aoissl.data.finding.rarest import rarest_part

from .measures import ImageAndMask
from .watcher import Labelled

if TYPE_CHECKING:
    from anomalib_aoissl.data.dataset import SegmentationDataset


def probe_images(datamodule: object, count: int, most: tuple[int, int] | None = None) -> Labelled | None:
    """Return up to ``count`` labelled training images as the bank and as many validation images as queries.

    Of an image that is larger than ``most``, (height, width) px, that much is returned, which shows its rarest class.
    Where no validation image has a mask, the training images are shared out to both sides. None where fewer than two
    images are labelled, or ``count`` is 0.
    """
    if count < 1:
        return None
    train = _labelled(getattr(datamodule, "train_data", None), 2 * count, most)
    queries = _labelled(getattr(datamodule, "val_data", None), count, most)
    if not queries:
        train, queries = train[::2], train[1::2]
    bank = train[:count]
    if not bank or not queries:
        return None
    masks = [mask[mask != 255] for _, mask in (*bank, *queries)]
    found = max(int(mask.max()) for mask in masks if mask.numel()) + 1
    names: Sequence[str] = getattr(datamodule, "class_names", ())
    return Labelled(bank, queries, max(found, len(names), 2))


def labelled_fingerprint(labelled: Labelled | None) -> str:
    """Return a hash of the probe's images, their masks and the number of classes; "" for no probe."""
    if labelled is None:
        return ""
    digest = hashlib.blake2b(f"{len(labelled.bank)}:{labelled.num_classes};".encode(), digest_size=16)
    for pair in (*labelled.bank, *labelled.queries):
        for tensor in pair:
            array = tensor.detach().cpu().contiguous().numpy()
            digest.update(f"{array.dtype}{array.shape};".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()


def _labelled(dataset: SegmentationDataset | None, count: int, most: tuple[int, int] | None) -> list[ImageAndMask]:
    """Return up to ``count`` images of the dataset that have a mask, spread over it, or parts of them."""
    if dataset is None or not len(dataset):
        return []
    samples = getattr(dataset, "samples", None)
    indices = list(range(len(dataset)))
    if samples is not None and "mask_path" in samples:
        indices = [index for index, path in enumerate(samples["mask_path"].tolist()) if path]
    step = max(len(indices) // count, 1)
    items: list[Any] = [dataset[index] for index in indices[::step][:count]]
    pairs = [(_plain(i.image).float(), _plain(i.gt_mask).to(torch.uint8)) for i in items if i.gt_mask is not None]
    return pairs if most is None else [_part(image, mask, most) for image, mask in pairs]


def _part(image: torch.Tensor, mask: torch.Tensor, most: tuple[int, int]) -> ImageAndMask:
    """Return a part of an image ``[C, H, W]`` and of its mask."""
    rows, columns = rarest_part(mask.shape[-2:], mask.numpy(), most)
    return image[:, rows, columns].clone(), mask[..., rows, columns].clone()


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor without torchvision's subclass."""
    return tensor.as_subclass(torch.Tensor)
