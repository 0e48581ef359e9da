# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Items and batches whose masks hold class indices instead of booleans.

They subclass anomalib's image items, so that its collation, augmentation, evaluator and engine work on them
unchanged. What differs: ``gt_mask`` and ``pred_mask`` are class-index masks, an image may have any number of
channels, and an item knows the device (the product) that it shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from anomalib.data import ImageBatch, ImageItem, NumpyImageBatch, NumpyImageItem
from torchvision.transforms.v2.functional import to_dtype_image
from torchvision.tv_tensors import Image, Mask

from .indices import IGNORE_INDEX


def validate_class_index_mask(mask: torch.Tensor, *, batched: bool) -> Mask:
    """Return a class-index mask as ``uint8``, ``[H, W]`` or ``[B, H, W]``.

    Args:
        mask: ``[H, W]`` or ``[1, H, W]``; with ``batched`` also ``[B, H, W]`` or ``[B, 1, H, W]``. An integer type,
            values in 0..255.
        batched: Whether the result has a batch axis.

    Raises:
        TypeError: If the mask is no tensor, or is boolean or floating point.
        ValueError: If the shape is another one, or a value lies outside 0..255.
    """
    if not isinstance(mask, torch.Tensor):
        msg = f"A class-index mask must be a torch.Tensor, got {type(mask).__name__}."
        raise TypeError(msg)
    if mask.dtype == torch.bool or mask.is_floating_point():
        msg = (
            f"A class-index mask must hold integers (0 background, 1..C-1 classes, 255 ignore), got {mask.dtype}. "
            "Convert it with mask.to(torch.uint8) if its values are class indices."
        )
        raise TypeError(msg)
    axes = 3 if batched else 2
    if mask.ndim == axes + 1 and mask.shape[-3] == 1:
        mask = mask.squeeze(-3)
    elif batched and mask.ndim == 2:
        mask = mask.unsqueeze(0)
    if mask.ndim != axes:
        expected = "[B, H, W] or [B, 1, H, W]" if batched else "[H, W] or [1, H, W]"
        msg = f"A class-index mask must have the shape {expected}, got {tuple(mask.shape)}."
        raise ValueError(msg)
    if mask.dtype != torch.uint8 and mask.numel() and (mask.min() < 0 or mask.max() > IGNORE_INDEX):
        msg = f"Class indices must lie in 0..255, got {int(mask.min())}..{int(mask.max())}."
        raise ValueError(msg)
    return Mask(mask, dtype=torch.uint8)


def _validate_image(image: torch.Tensor, axes: int) -> Image:
    """Return a float image in [0, 1] with ``axes`` axes, any number of channels."""
    if not isinstance(image, torch.Tensor):
        msg = f"An image must be a torch.Tensor, got {type(image).__name__}."
        raise TypeError(msg)
    if image.ndim != axes or 0 in image.shape[-3:]:
        expected = "[C, H, W]" if axes == 3 else "[B, C, H, W]"
        msg = f"An image must have the shape {expected} with at least one channel and pixel, got {tuple(image.shape)}."
        raise ValueError(msg)
    return Image(to_dtype_image(image, torch.float32, scale=True))


class _NumpyValidators:
    """How the numpy twins validate their fields."""

    BATCHED: ClassVar[bool] = False

    @classmethod
    def validate_image(cls, image: np.ndarray) -> np.ndarray:
        """Return the image or images channels last; channels first is recognised by its shortest axis.

        Raises:
            ValueError: If an image has neither two nor three axes.
        """
        return _numpy_image(image, axes=3 + cls.BATCHED)

    @classmethod
    def validate_gt_mask(cls, mask: np.ndarray | None) -> np.ndarray | None:
        """Return the class-index mask or masks, uint8; see `validate_class_index_mask` for what raises."""
        return None if mask is None else _numpy_mask(mask, batched=cls.BATCHED)

    validate_pred_mask = validate_gt_mask


class _Validators:
    """How item and batch validate their fields."""

    BATCHED: ClassVar[bool] = False

    @classmethod
    def validate_image(cls, image: torch.Tensor) -> Image:
        """Return the image or images as float32 in [0, 1]; one image gets the batch axis of a batch.

        Raises:
            TypeError: If it is no tensor.
            ValueError: If its shape is not ``[C, H, W]`` or ``[B, C, H, W]``.
        """
        if cls.BATCHED and isinstance(image, torch.Tensor) and image.ndim == 3:
            image = image.unsqueeze(0)
        return _validate_image(image, axes=3 + cls.BATCHED)

    @classmethod
    def validate_gt_mask(cls, mask: torch.Tensor | None) -> Mask | None:
        """Return the class-index mask or masks; see `validate_class_index_mask` for what raises."""
        return None if mask is None else validate_class_index_mask(mask, batched=cls.BATCHED)

    @classmethod
    def validate_pred_mask(cls, mask: torch.Tensor | None) -> Mask | None:
        """Return the class-index mask or masks; boolean ones, as anomalib's own models predict, become 0 and 1."""
        return cls.validate_gt_mask(None if mask is None else _indices(mask))


@dataclass
class NumpySegmentationItem(_NumpyValidators, NumpyImageItem):
    """Numpy twin of `SegmentationItem`: image ``[H, W, C]`` float32, masks ``[H, W]`` uint8."""

    device_name: str | None = None
    fault: str | None = None
    uncertainty: np.ndarray | None = None
    abstained: np.ndarray | None = None


@dataclass
class NumpySegmentationBatch(_NumpyValidators, NumpyImageBatch):
    """Numpy twin of `SegmentationBatch`: images ``[B, H, W, C]`` float32, masks ``[B, H, W]`` uint8."""

    BATCHED: ClassVar[bool] = True
    item_class: ClassVar[type[NumpySegmentationItem]] = NumpySegmentationItem
    device_name: list[str] | None = None
    fault: list[str] | None = None
    uncertainty: np.ndarray | None = None
    abstained: np.ndarray | None = None

    @staticmethod
    def validate_anomaly_map(anomaly_map: np.ndarray | None) -> np.ndarray | None:
        """Return the novelty maps ``[B, H, W]`` float32."""
        if anomaly_map is not None and anomaly_map.ndim == 4 and anomaly_map.shape[1] == 1:
            anomaly_map = anomaly_map[:, 0]
        return NumpyImageBatch.validate_anomaly_map(anomaly_map)


@dataclass
class SegmentationItem(_Validators, ImageItem):
    """One image with its class-index mask.

    ``image`` ``[C, H, W]`` float32 in [0, 1], any C; ``gt_mask`` and ``pred_mask`` ``[H, W]`` uint8 class indices;
    ``gt_label`` true where the item has any foreground; ``device_name`` the product on the image;
    ``fault`` in what a picture of a prediction differs from the labelled ones, "" for nothing. A model that can
    abstain gives ``uncertainty`` ``[H, W]`` in [0, 1] and, with a threshold, ``abstained`` ``[H, W]`` bool.
    """

    numpy_class: ClassVar[type[NumpySegmentationItem]] = NumpySegmentationItem
    device_name: str | None = None
    fault: str | None = None
    uncertainty: torch.Tensor | None = None
    abstained: torch.Tensor | None = None


@dataclass
class SegmentationBatch(_Validators, ImageBatch):
    """A batch of `SegmentationItem`: images ``[B, C, H, W]``, masks ``[B, H, W]`` uint8."""

    BATCHED: ClassVar[bool] = True
    item_class: ClassVar[type[SegmentationItem]] = SegmentationItem
    numpy_class: ClassVar[type[NumpySegmentationBatch]] = NumpySegmentationBatch
    device_name: list[str] | None = None
    fault: list[str] | None = None
    uncertainty: torch.Tensor | None = None
    abstained: torch.Tensor | None = None

    @classmethod
    def collate(cls, items: list[Any]) -> SegmentationBatch:
        """Return the items as one batch; items of other sizes are resized to the largest, as anomalib does.

        Where some items have a mask and others have none, the missing masks are all ignore: anomalib's collation
        takes its fields from the first item alone, and would drop the other masks or fail.

        Raises:
            ValueError: If two items have another number of planes.
        """
        odd = next((item for item in items if len(item.image) != len(items[0].image)), None)
        if odd is not None:
            msg = (
                f"{odd.image_path}: has {len(odd.image)} planes, but {items[0].image_path} of the same batch has "
                f"{len(items[0].image)}. Save both alike."
            )
            raise ValueError(msg)
        if any(item.gt_mask is not None for item in items):
            items = [item if item.gt_mask is not None else _with_ignored_mask(item) for item in items]
        if any(item.mask_path is None for item in items):
            items = [item.update(mask_path=None) for item in items]
        if any(item.device_name is not None for item in items):
            items = [item if item.device_name is not None else item.update(device_name="") for item in items]
        batch: Any = super().collate(items)
        return batch


def _indices(pred_mask: torch.Tensor) -> torch.Tensor:
    """Return a boolean mask as indices, any other as it is."""
    is_boolean = isinstance(pred_mask, torch.Tensor) and pred_mask.dtype == torch.bool
    return pred_mask.to(torch.uint8) if is_boolean else pred_mask


def _with_ignored_mask(item: Any) -> SegmentationItem:
    """Return the item with a mask that nothing counts, so that it can stand in a batch beside labelled items."""
    mask = torch.full(item.image.shape[-2:], IGNORE_INDEX, dtype=torch.uint8)
    return item.update(gt_mask=Mask(mask), gt_label=torch.tensor(False))


def _numpy_mask(mask: np.ndarray, *, batched: bool) -> np.ndarray:
    """Return a class-index mask after the same checks as its torch twin."""
    if not isinstance(mask, np.ndarray):
        msg = f"A class-index mask must be a numpy.ndarray, got {type(mask).__name__}."
        raise TypeError(msg)
    if batched and mask.ndim == 4 and mask.shape[-1] == 1:
        mask = mask[..., 0]
    return validate_class_index_mask(torch.from_numpy(np.ascontiguousarray(mask)), batched=batched).numpy()


def _numpy_image(image: np.ndarray, axes: int) -> np.ndarray:
    """Return the image channels last, as float32."""
    if not isinstance(image, np.ndarray):
        msg = f"An image must be a numpy.ndarray, got {type(image).__name__}."
        raise TypeError(msg)
    if image.ndim == axes - 1:
        image = image[..., np.newaxis]
    if image.ndim != axes:
        msg = f"An image must have {axes - 1} or {axes} axes, got the shape {image.shape}."
        raise ValueError(msg)
    channels, last = image.shape[-3], image.shape[-1]
    if channels < last and channels <= image.shape[-2]:
        image = np.moveaxis(image, -3, -1)
    return image.astype(np.float32)
