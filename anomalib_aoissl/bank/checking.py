# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What cannot be in a memory bank: looked for where a bank is read, so that nothing impossible is ever searched."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from anomalib_aoissl.data.indices import IGNORE_INDEX
from anomalib_aoissl.pixel_head.learning.sample import FOLDS, KINDS, PixelSample

from .content import NAMES, REQUIRED, BankArrays

_LENGTH_ERROR = 1e-2
"""How far an embedding's length may be from 1; half precision takes up to a thousandth."""

_LARGEST = 127  # of the integers of an embedding in int8, see `precision.stored`


def damage(bank: BankArrays) -> str:
    """Return what is impossible in a bank, or does not fit together; empty where everything does."""
    checks: tuple[Callable[[BankArrays], str], ...] = (_shapes, _types, _embeddings, _numbers, _names, _pixels)
    return next((problem for check in checks if (problem := check(bank))), "")


def _names(bank: BankArrays) -> str:
    """Return what is wrong with the names of classes, devices and images."""
    for kind in NAMES:
        names = getattr(bank, kind)
        if not all(isinstance(name, str) for name in names):
            return f"{kind} that are no text"
        if len(set(names)) != len(names):
            return f"{kind} with a name twice"
    if not isinstance(bank.encoder_hash, str):
        return "an encoder_hash that is no text"
    return f"{len(bank.class_names)} classes" if len(bank.class_names) > IGNORE_INDEX else ""


def _shapes(bank: BankArrays) -> str:
    """Return what is wrong with the shapes of the entries."""
    missing = [name for name in REQUIRED if name not in bank.entries]
    if missing:
        return f"{missing} missing"
    entries = {name: bank.entries[name] for name in (*REQUIRED, *bank.entries)}
    lengths = {name: len(array) if array.ndim else 0 for name, array in entries.items()}
    wanted = {name: 2 if name in {"embeddings", "labels"} else 1 for name in REQUIRED}
    if len(set(lengths.values())) != 1 or any(entries[name].ndim != number for name, number in wanted.items()):
        return f"entries of {lengths}"
    if not len(bank) or not entries["embeddings"].shape[1] or not entries["labels"].shape[1]:
        return "no entries, or entries of nothing"
    size, labels = bank.patch_size, entries["labels"].shape[1]
    if size is not None and (min(size) < 1 or size[0] * size[1] != labels):
        return f"patches of {size[0]}x{size[1]} px, but {labels} labels for each"
    return ""


def _types(bank: BankArrays) -> str:
    """Return what is wrong with the types of the entries."""
    kinds = {name: bank.entries[name].dtype.kind for name in REQUIRED}
    if bank.entries["embeddings"].dtype.name not in {"float32", "float16", "int8"}:
        return f"embeddings of type {bank.entries['embeddings'].dtype}"
    if bank.entries["labels"].dtype != np.uint8:
        return f"labels of type {bank.entries['labels'].dtype}"
    wrong = [name for name in REQUIRED if name not in {"embeddings", "labels"} and kinds[name] != "i"]
    return f"{wrong} that are no integers" if wrong else ""


def _embeddings(bank: BankArrays) -> str:
    """Return what is wrong with the embeddings."""
    stored = bank.entries["embeddings"]
    if stored.dtype == np.int8:
        whole = np.abs(stored.astype(np.int16)).max(axis=1) == _LARGEST
        return "" if whole.all() else "embeddings of 8 bits whose largest value is not 127"
    if not np.isfinite(stored).all():
        return "embeddings that are not finite"
    lengths = np.linalg.norm(stored.astype(np.float32), axis=1)
    worst = float(lengths[np.abs(lengths - 1).argmax()])
    return "" if abs(worst - 1) <= _LENGTH_ERROR else f"an embedding of length {worst:.3g}; all have length 1"


def _numbers(bank: BankArrays) -> str:
    """Return what is wrong with labels, ids, positions and counts."""
    entries = bank.entries
    if int(entries["counts"].min()) < 1:
        return f"counts down to {int(entries['counts'].min())}; an entry stands for 1 patch at least"
    if int(entries["positions"].min()) < 0:
        return f"positions down to {int(entries['positions'].min())}"
    return _beyond(
        ("labels", len(bank.class_names), entries["labels"][entries["labels"] != IGNORE_INDEX]),
        ("device_ids", len(bank.device_names), entries["device_ids"]),
        ("image_ids", len(bank.image_names), entries["image_ids"]),
    )


def _beyond(*indexed: tuple[str, int, np.ndarray]) -> str:
    """Return which indices have no name, given what they are called, how many names there are, and the indices."""
    for name, limit, values in indexed:
        if len(values) and not 0 <= int(values.min()) <= int(values.max()) < limit:
            least = f", down to {int(values.min())}" if int(values.min()) < 0 else ""
            return f"{name} up to {int(values.max())}{least}, but {limit} names"
    return ""


def _pixels(bank: BankArrays) -> str:
    """Return what is wrong with the labelled pixels."""
    pixels = bank.pixels
    if pixels is None or not len(pixels):
        return ""
    arrays = pixels.arrays
    lengths = {len(array) if array.ndim else 0 for array in arrays.values()}
    flat = all(arrays[name].ndim == (2 if name in {"values", "context"} else 1) for name in KINDS)
    if len(lengths) != 1 or not flat:
        return f"labelled pixels of { ({name: array.shape for name, array in arrays.items()}) }"
    problem = _beyond(
        ("labels of pixels", len(bank.class_names), pixels.labels),
        ("device_ids of pixels", len(bank.device_names), pixels.device_ids),
        ("image_ids of pixels", len(bank.image_names), pixels.image_ids),
        ("folds of pixels", FOLDS, pixels.folds),
    )
    return problem or _pixel_numbers(pixels)


def _pixel_numbers(pixels: PixelSample) -> str:
    """Return what is wrong with the weights and the novelty of labelled pixels."""
    if not (np.isfinite(pixels.weights) & (pixels.weights > 0)).all():
        return "labelled pixels whose weights are not above 0"
    known = pixels.novelty[~np.isnan(pixels.novelty)]
    inside = (known > -_LENGTH_ERROR) & (known < 2 + _LENGTH_ERROR)
    return "" if inside.all() else "labelled pixels whose novelty is not in 0 to 2"
