# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""A memory bank as numpy arrays, edited by pure functions; what exported models and commands use, without torch."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from anomalib_aoissl.data.indices import IGNORE_INDEX
from anomalib_aoissl.pixel_head.learning.sample import PixelSample, joined_pixels

logger = logging.getLogger(__name__)

NAMES = ("class_names", "device_names", "image_names")
"""Lists of names that every bank has."""

ID_NAMES = ("device_ids", "image_ids", "positions")
"""Entries' origin, each ``[N]`` int32."""

REQUIRED = ("embeddings", "labels", *ID_NAMES, "counts")
"""Arrays that every bank has, in the order of their tensors in a `MemoryBank`."""

_LISTED = 10  # names that a message shows at most


@dataclass(frozen=True)
class BankArrays:
    """Entries and names of a bank; N entries, D dims, L = patch height * patch width labels an entry.

    Attributes:
        entries: Arrays by name, each of length N: ``embeddings`` ``[N, D]`` of unit length, or int8 of the same
            direction; ``labels`` ``[N, L]`` uint8 (255 = ignore), ``device_ids``, ``image_ids``, ``positions`` and
            ``counts`` ``[N]`` int32.
        class_names: Names of the classes in the order of their indices.
        device_names: Names that the device ids index.
        image_names: Names that the image ids index.
        encoder_hash: Of the encoder of the embeddings; empty where it is not known.
        extra: Whatever else a file says of its bank; kept as it is.
        pixels: Labelled pixels of the same images, to which a pixel head is fitted; None where there is no head.
        patch_size: (height, width) of a patch, px; None where an old file does not say it.
    """

    entries: Mapping[str, np.ndarray]
    class_names: tuple[str, ...] = ()
    device_names: tuple[str, ...] = ()
    image_names: tuple[str, ...] = ()
    encoder_hash: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)
    pixels: PixelSample | None = None
    patch_size: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.entries["labels"])


def float_embeddings(entries: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the embeddings ``[N, D]`` as float32 of unit length, whatever they are stored in."""
    embeddings = entries["embeddings"].astype(np.float32)
    if entries["embeddings"].dtype != np.int8:
        return embeddings
    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True).clip(1e-12)


def stored_entries(entries: Mapping[str, np.ndarray], like: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the entries with their embeddings stored as those of another bank are; int8 as `precision.stored` does."""
    stored = {name: entries[name].astype(like[name].dtype) for name in REQUIRED if name != "embeddings"}
    wanted = like["embeddings"].dtype
    if entries["embeddings"].dtype == wanted:
        return {"embeddings": entries["embeddings"], **stored}
    embeddings = float_embeddings(entries)
    if wanted == np.int8:
        largest = np.abs(embeddings).max(axis=1, keepdims=True, initial=1e-12)
        embeddings = np.round(embeddings * (127 / largest))
    return {"embeddings": embeddings.astype(wanted), **stored}


def labelled_image(
    embeddings: np.ndarray, labels: np.ndarray, *, device: str, image: str, class_names: Sequence[str]
) -> BankArrays:
    """Return the bank of one labelled image; patches that are ignored as a whole are left out.

    Args:
        embeddings: ``[P, D]``, patches in row-major order; brought to unit length.
        labels: ``[P, L]`` uint8 class indices of their pixels.
        device: The image's device.
        image: Its name.
        class_names: Names of the classes in the order of their indices.

    Raises:
        ValueError: If every pixel is ignored, or the embeddings are not finite.
    """
    check_embeddings(embeddings, image)
    used = np.flatnonzero((labels != IGNORE_INDEX).any(axis=1))
    if not len(used):
        msg = f"{image}: every pixel of the mask is ignored ({IGNORE_INDEX}), so there is nothing to learn from it."
        raise ValueError(msg)
    vectors = embeddings[used].astype(np.float32)
    entries = {
        "embeddings": vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12),
        "labels": labels[used].astype(np.uint8),
        "device_ids": np.zeros(len(used), np.int32),
        "image_ids": np.zeros(len(used), np.int32),
        "positions": used.astype(np.int32),
        "counts": np.ones(len(used), np.int32),
    }
    return BankArrays(entries, tuple(class_names), (device,), (image,))


def check_embeddings(embeddings: Any, image: str) -> None:
    """Validate that the embeddings of an image, an array or a tensor on the processor, are finite.

    Raises:
        ValueError: If they are not.
    """
    if not np.isfinite(embeddings).all():
        msg = f"{image}: its embeddings are NaN or infinity, as an image gives that holds such values. Mend the image."
        raise ValueError(msg)


def removed(bank: BankArrays, *, device: str | None = None, image: str | None = None) -> BankArrays:
    """Return the bank without the entries of a device or of an image; of an image of a device where both are given.

    A class whose last entry goes is warned of. Names without entries go too.

    Raises:
        ValueError: If neither is given, the bank has no such device or image, or no entry would be left.
    """
    leaving = entries_to_remove(bank, device, image)
    pixels = pixels_without(bank, device, image)
    if leaving.all():
        msg = "That would leave an empty bank, which gives no mask. Put other labelled images in first, or replace it."
        raise ValueError(msg)
    return without_entries(bank, leaving, pixels)


def entries_to_remove(bank: BankArrays, device: str | None, image: str | None) -> np.ndarray:
    """Return which entries ``[N]`` are of a device or of an image; of an image of a device where both are given.

    Raises:
        ValueError: If neither is given, or the bank has no such device or image.
    """
    if device is None and image is None:
        msg = "Say what to remove: device=, image=, or both for an image of a device."
        raise ValueError(msg)
    return _entries_of(bank, device, image)


def without_entries(bank: BankArrays, leaving: np.ndarray, pixels: PixelSample | None, advice: str = "") -> BankArrays:
    """Return the bank without the entries ``[N]`` that are true, with these pixels, and without names that neither has.

    A class whose last entry goes is warned of, with the advice after it.
    """
    left = {name: array[~leaving] for name, array in bank.entries.items()}
    before, after = (set(np.unique(labels).tolist()) for labels in (bank.entries["labels"], left["labels"]))
    lost = [name for index, name in enumerate(bank.class_names) if index in before - after]
    if lost:
        logger.warning("The bank has no patch of %s any more, so no mask will show it.%s", lost, advice)
    return with_used_names(replace(bank, entries=left, pixels=pixels))


def pixels_without(bank: BankArrays, device: str | None, image: str | None) -> PixelSample | None:
    """Return the bank's pixels without those of a device or of an image, or of an image of a device."""
    return bank.pixels if bank.pixels is None else bank.pixels.chosen(~_pixels_of(bank, bank.pixels, device, image))


def selected(bank: BankArrays, *, device: str | None = None, image: str | None = None) -> BankArrays:
    """Return the bank with only the entries of a device or of an image, or all where neither is given.

    Raises:
        ValueError: If the bank has no such device or image, or no entry of both.
    """
    staying = _entries_of(bank, device, image)
    if not staying.any():
        msg = f"The bank has no entry of the image {image!r} of the device {device!r}."
        raise ValueError(msg)
    entries = {name: array[staying] for name, array in bank.entries.items()}
    pixels = bank.pixels if bank.pixels is None else bank.pixels.chosen(_pixels_of(bank, bank.pixels, device, image))
    return with_used_names(replace(bank, entries=entries, pixels=pixels))


def merged(bank: BankArrays, other: BankArrays, *, new_classes: bool = False) -> BankArrays:
    """Return the bank with the entries of another after its own; classes are mapped by name.

    The indices of the bank's own classes stay. The other's embeddings are stored as the bank's are.

    Args:
        bank: The bank; it may have no entries.
        other: The bank to take in.
        new_classes: Add classes that only the other bank has, after those of this one; else they are an error.

    Raises:
        ValueError: If the other bank has classes that this one has not, or its entries are of another encoder.
    """
    check_same_encoder(bank, other)
    classes = bank.class_names or other.class_names
    unknown = [name for name in other.class_names if name not in classes]
    if unknown and not new_classes:
        msg = (
            f"The banks have other classes: {list(classes)} here, {list(other.class_names)} in the bank to take in. "
            f"{unknown} cannot be mapped by name. Correct the names; exported models and bank files take new classes "
            "with new_classes=True, the command with --new_classes."
        )
        raise ValueError(msg)
    classes = (*classes, *unknown)
    if len(classes) > IGNORE_INDEX:
        msg = f"{len(classes)} classes do not fit into a mask of 8 bits; {IGNORE_INDEX} is its ignored value."
        raise ValueError(msg)
    twice = sorted(set(bank.image_names) & set(other.image_names))
    if twice:
        logger.warning("Both banks have patches of %d images, which vote twice now, such as %s.", len(twice), twice[0])
    device_names, devices = joint_names(bank.device_names, other.device_names)
    image_names, images = joint_names(bank.image_names, other.image_names)
    entries = dict(stored_entries(other.entries, bank.entries))
    entries["device_ids"], entries["image_ids"] = devices[entries["device_ids"]], images[entries["image_ids"]]
    table = np.full(IGNORE_INDEX + 1, IGNORE_INDEX, np.uint8)
    table[: len(other.class_names)] = [classes.index(name) for name in other.class_names]
    entries["labels"] = table[entries["labels"]]
    pixels = _joined_pixels(bank, other, classes, (devices, images))
    return replace(
        bank,
        entries=joined_entries(bank.entries, entries),
        class_names=classes,
        device_names=device_names,
        image_names=image_names,
        encoder_hash=bank.encoder_hash or other.encoder_hash,
        pixels=pixels,
        patch_size=bank.patch_size or other.patch_size,
    )


def joined_entries(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return entries with others after them, stored alike and with the same names."""
    return {name: np.concatenate([array, theirs[name]]) for name, array in ours.items()}


def _joined_pixels(
    bank: BankArrays, other: BankArrays, classes: Sequence[str], tables: tuple[np.ndarray, np.ndarray]
) -> PixelSample | None:
    """Return the labelled pixels of both banks, of these classes; tables renumber the other's devices and images."""
    parts = []
    for part in (bank, other):
        indices = [classes.index(name) for name in part.class_names]
        known = part.pixels is not None and len(indices) > 0
        parts.append(part.pixels.relabelled(indices, len(classes)) if known and part.pixels is not None else None)
    ours, theirs = parts
    if theirs is None:
        return ours
    theirs = theirs.renumbered(*tables)
    return theirs if ours is None else joined_pixels(ours, theirs)


def emptied(bank: BankArrays) -> BankArrays:
    """Return the bank without entries; its classes and its encoder stay, and which head's pixels it takes."""
    entries = {name: array[:0] for name, array in bank.entries.items()}
    pixels = bank.pixels if bank.pixels is None else bank.pixels.chosen(np.arange(0))
    return replace(bank, entries=entries, device_names=(), image_names=(), pixels=pixels)


def described(bank: BankArrays) -> dict[str, Any]:
    """Return what a bank holds: entries, patches, megabytes, encoder; those of each device, image and class.

    ``entries_of_class`` counts an entry in each class that it shows.
    """
    labels, counts = bank.entries["labels"], bank.entries["counts"]
    pixels = np.bincount(labels.reshape(-1), minlength=IGNORE_INDEX + 1)
    of = {
        kind: np.bincount(bank.entries[ids], minlength=len(names)).tolist()
        for kind, ids, names in (("device", "device_ids", bank.device_names), ("image", "image_ids", bank.image_names))
    }
    of_pixels = 0.0 if bank.pixels is None else bank.pixels.megabytes
    stored = [array for name, array in bank.entries.items() if name != "counts" or bool((counts != 1).any())]
    return {
        "entries": len(bank),
        "patches": int(counts.sum()),
        "images": len(bank.image_names),
        "megabytes": sum(array.nbytes for array in stored) / 1e6,
        "pixels": 0 if bank.pixels is None else len(bank.pixels),
        "megabytes_of_pixels": of_pixels,
        "entries_of_device": dict(zip(bank.device_names, of["device"], strict=True)),
        "entries_of_image": dict(zip(bank.image_names, of["image"], strict=True)),
        "entries_of_class": {n: int((labels == i).any(axis=1).sum()) for i, n in enumerate(bank.class_names)},
        "pixels_of_class": {name: int(pixels[index]) for index, name in enumerate(bank.class_names)},
        "encoder_hash": bank.encoder_hash,
    }


def check_same_encoder(bank: BankArrays, other: BankArrays) -> None:
    """Validate that the entries of two banks have one shape, and one encoder where both are known.

    Raises:
        ValueError: If one of them differs.
    """
    shapes = [(b.entries["embeddings"].shape[1], b.entries["labels"].shape[1]) for b in (bank, other)]
    if shapes[0] != shapes[1]:
        msg = (
            f"The banks have entries of {shapes[0][0]} and {shapes[1][0]} dims, and {shapes[0][1]} and {shapes[1][1]} "
            "labels: they are of different encoders. Fill a bank from the images again."
        )
        raise ValueError(msg)
    sizes = [b.patch_size for b in (bank, other)]
    if all(sizes) and sizes[0] != sizes[1]:
        msg = f"The banks have patches of {sizes[0]} and {sizes[1]} px (height, width). Fill a bank again."
        raise ValueError(msg)
    hashes = bank.encoder_hash, other.encoder_hash
    if all(hashes) and hashes[0] != hashes[1]:
        msg = (
            f"The bank was filled with the encoder {hashes[1][:12]}, this model's is {hashes[0][:12]}. Embeddings of "
            "two encoders cannot be compared. Use the encoder that filled the bank, or train again to fill a new bank."
        )
        raise ValueError(msg)


def joint_names(ours: Sequence[str], theirs: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """Return our names with theirs that are new after them, and for each of theirs its index in the result."""
    index = {name: position for position, name in enumerate(dict.fromkeys([*ours, *theirs]))}
    return tuple(index), np.array([index[name] for name in theirs], dtype=np.int32)


def with_used_names(bank: BankArrays) -> BankArrays:
    """Return the bank with the names that have entries or pixels, and ids that index them."""
    entries, names, tables = dict(bank.entries), [], []
    for ids, old in (("device_ids", bank.device_names), ("image_ids", bank.image_names)):
        every = entries[ids] if bank.pixels is None else np.concatenate([entries[ids], getattr(bank.pixels, ids)])
        used = np.unique(every)
        table = np.zeros(len(old), np.int32)
        table[used] = np.arange(len(used))
        entries[ids] = table[entries[ids]]
        names.append(tuple(old[index] for index in used.tolist()))
        tables.append(table)
    pixels = bank.pixels if bank.pixels is None else bank.pixels.renumbered(*tables)
    return replace(bank, entries=entries, device_names=names[0], image_names=names[1], pixels=pixels)


def _pixels_of(bank: BankArrays, pixels: PixelSample, device: str | None, image: str | None) -> np.ndarray:
    """Return which pixels are of the device and of the image, where they are given."""
    chosen = np.ones(len(pixels), dtype=bool)
    for name, names, ids in (
        (device, bank.device_names, pixels.device_ids),
        (image, bank.image_names, pixels.image_ids),
    ):
        if name is not None:
            chosen &= ids == names.index(name)
    return chosen


def _entries_of(bank: BankArrays, device: str | None, image: str | None) -> np.ndarray:
    """Return which entries ``[N]`` are of the device and of the image, where they are given."""
    chosen = np.ones(len(bank), dtype=bool)
    for kind, name, names, ids in (
        ("device", device, bank.device_names, bank.entries["device_ids"]),
        ("image", image, bank.image_names, bank.entries["image_ids"]),
    ):
        if name is None:
            continue
        if name not in names:
            more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
            msg = f"The bank has no {kind} {name!r}. It has {list(names[:_LISTED])}{more}."
            raise ValueError(msg)
        chosen &= ids == names.index(name)
    return chosen
