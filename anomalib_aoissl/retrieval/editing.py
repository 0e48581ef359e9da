# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What a memory bank holds, as a value: taken apart, put together and described by pure functions."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from anomalib_aoissl.data.indices import IGNORE_INDEX

from .precision import converted

logger = logging.getLogger(__name__)

ROW_BUFFERS = ("embeddings", "labels", "device_ids", "image_ids", "positions")
"""Tensors with one entry for each row of a bank; the counts come after them."""

_DEVICES, _IMAGES = ROW_BUFFERS.index("device_ids"), ROW_BUFFERS.index("image_ids")


@dataclass(frozen=True)
class BankContent:
    """Rows and names of a bank.

    Attributes:
        rows: The tensors of `ROW_BUFFERS`, and last the counts ``[N]`` int32, patches that each row stands for.
        class_names: Names of the classes in the order of their indices.
        device_names: Names that the device ids index.
        image_names: Names that the image ids index.
        encoder_hash: `encoder_hash` of the encoder of the embeddings; empty where it is not known.
    """

    rows: tuple[torch.Tensor, ...]
    class_names: tuple[str, ...] = ()
    device_names: tuple[str, ...] = ()
    image_names: tuple[str, ...] = ()
    encoder_hash: str = ""


def joined_rows(rows: Sequence[tuple[torch.Tensor, ...]]) -> tuple[torch.Tensor, ...]:
    """Return several tuples of tensors as one, each tensor concatenated."""
    return tuple(torch.cat(tensors) for tensors in zip(*rows, strict=True))


def without(content: BankContent, *, device: str | None = None, image: str | None = None) -> BankContent:
    """Return the content without the rows of a device or of an image; of an image of a device where both are given.

    A class whose last row goes is warned of. Names without rows go too.

    Raises:
        ValueError: If neither is given, or the bank has no such device or image.
    """
    if device is None and image is None:
        msg = "Say what to remove: device=, image=, or both for an image of a device."
        raise ValueError(msg)
    leaving = torch.ones(len(content.rows[0]), dtype=torch.bool, device=content.rows[0].device)
    for kind, name, names, column in (
        ("device", device, content.device_names, _DEVICES),
        ("image", image, content.image_names, _IMAGES),
    ):
        if name is None:
            continue
        if name not in names:
            msg = f"The bank has no {kind} {name!r}. It has {list(names)}."
            raise ValueError(msg)
        leaving &= content.rows[column] == names.index(name)
    _warn_of_lost_classes(content, leaving)
    return _compacted(replace(content, rows=tuple(tensor[~leaving] for tensor in content.rows)))


def merged(content: BankContent, other: BankContent) -> BankContent:
    """Return the content with the rows of another bank after its own; the other's classes are mapped by name.

    Raises:
        ValueError: If the other bank has classes that this one has not, or its rows are of another encoder.
    """
    _check_same_encoder(content, other)
    classes = content.class_names or other.class_names
    unknown = [name for name in other.class_names if name not in classes]
    if unknown:
        msg = (
            f"The banks have other classes: {list(classes)} here, {list(other.class_names)} in the bank to merge. "
            f"{unknown} cannot be mapped; a bank may only be merged into one that has all its classes by name."
        )
        raise ValueError(msg)
    twice = sorted(set(content.image_names) & set(other.image_names))
    if twice:
        logger.warning("Both banks have patches of %d images, which vote twice now, such as %s.", len(twice), twice[0])
    device_names, devices = joint_names(content.device_names, other.device_names)
    image_names, images = joint_names(content.image_names, other.image_names)
    rows = list(other.rows)
    rows[1] = _mapped_labels(rows[1], other.class_names, classes)
    rows[_DEVICES], rows[_IMAGES] = devices[rows[_DEVICES].long().cpu()], images[rows[_IMAGES].long().cpu()]
    rows[0] = converted(rows[0], content.rows[0].dtype)
    adapted = tuple(new.to(old.device, old.dtype) for new, old in zip(rows, content.rows, strict=True))
    return BankContent(
        joined_rows([content.rows, adapted]),
        tuple(classes),
        device_names,
        image_names,
        content.encoder_hash or other.encoder_hash,
    )


def described(content: BankContent) -> dict[str, Any]:
    """Return rows, patches, megabytes and encoder of a bank, and its rows or pixels of each device, image and class."""
    _, labels, devices, images, _, counts = content.rows
    pixels = torch.bincount(labels.flatten().long(), minlength=IGNORE_INDEX + 1)
    of_device = torch.bincount(devices.long(), minlength=len(content.device_names)).tolist()
    of_image = torch.bincount(images.long(), minlength=len(content.image_names)).tolist()
    tensors = content.rows if bool((counts != 1).any()) else content.rows[:-1]  # counts of one are not stored
    return {
        "rows": len(labels),
        "patches": int(counts.sum()),
        "images": len(content.image_names),
        "megabytes": sum(tensor.numel() * tensor.element_size() for tensor in tensors) / 1e6,
        "rows_of_device": dict(zip(content.device_names, of_device, strict=True)),
        "rows_of_image": dict(zip(content.image_names, of_image, strict=True)),
        "pixels_of_class": {name: int(pixels[index]) for index, name in enumerate(content.class_names)},
        "encoder_hash": content.encoder_hash,
    }


def _warn_of_lost_classes(content: BankContent, leaving: torch.Tensor) -> None:
    """Log the classes that only the leaving rows have."""
    before, after = (set(labels.unique().tolist()) for labels in (content.rows[1], content.rows[1][~leaving]))
    lost = [name for index, name in enumerate(content.class_names) if index in before - after]
    if lost:
        logger.warning("The bank has no patch of %s any more, so no mask will show it. undo() brings it back.", lost)


def _compacted(content: BankContent) -> BankContent:
    """Return the content with the names that have rows, and ids that index them."""
    rows, names = list(content.rows), []
    for column, old in ((_DEVICES, content.device_names), (_IMAGES, content.image_names)):
        used, ids = rows[column].unique(return_inverse=True)
        rows[column] = ids.to(torch.int32)
        names.append(tuple(old[index] for index in used.tolist()))
    return replace(content, rows=tuple(rows), device_names=names[0], image_names=names[1])


def _check_same_encoder(content: BankContent, other: BankContent) -> None:
    """Refuse rows of another shape, and rows that are known to be of another encoder."""
    shapes = [(c.rows[0].shape[1], c.rows[1].shape[1]) for c in (content, other)]
    if shapes[0] != shapes[1]:
        msg = (
            f"The banks have rows of {shapes[0][0]} and {shapes[1][0]} dims, and {shapes[0][1]} and {shapes[1][1]} "
            "labels: they are of different encoders. Fill a bank from the images again."
        )
        raise ValueError(msg)
    hashes = content.encoder_hash, other.encoder_hash
    if all(hashes) and hashes[0] != hashes[1]:
        msg = (
            f"The bank's embeddings are of the encoder {hashes[1][:12]}, this model's is {hashes[0][:12]}, so their "
            "similarities mean nothing. Use the encoder that the bank was filled with, or fill a bank again."
        )
        raise ValueError(msg)


def joint_names(ours: Sequence[str], theirs: Sequence[str]) -> tuple[tuple[str, ...], torch.Tensor]:
    """Return our names with theirs that are new after them, and for each of theirs its index in the result."""
    names = [*ours, *(name for name in theirs if name not in set(ours))]
    index = {name: position for position, name in enumerate(names)}
    return tuple(names), torch.tensor([index[name] for name in theirs], dtype=torch.int32)


def _mapped_labels(labels: torch.Tensor, theirs: Sequence[str], ours: Sequence[str]) -> torch.Tensor:
    """Return labels ``[N, L]`` of their class indices as those of ours."""
    table = torch.full((IGNORE_INDEX + 1,), IGNORE_INDEX, dtype=torch.uint8)
    for index, name in enumerate(theirs):
        table[index] = list(ours).index(name)
    return table[labels.cpu().long()]
