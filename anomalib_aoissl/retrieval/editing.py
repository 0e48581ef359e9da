# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What a memory bank holds, as a value of tensors; edits are those of `bank.content`, which need no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from anomalib_aoissl.bank.checking import damage
from anomalib_aoissl.bank.content import REQUIRED, BankArrays, entries_to_remove, pixels_without, without_entries
from anomalib_aoissl.bank.content import described as described_arrays
from anomalib_aoissl.bank.content import merged as merged_arrays
from anomalib_aoissl.pixel_head.sample import KINDS, PixelSample, sample_of

ENTRY_BUFFERS = REQUIRED[:-1]
"""Tensors of length N, for N entries of a bank; the counts, the last of `bank.content.REQUIRED`, come after them."""


@dataclass(frozen=True)
class BankContent:
    """Entries and names of a bank.

    Attributes:
        entries: The tensors of `ENTRY_BUFFERS`, and last the counts ``[N]`` int32, patches that each entry stands for.
        class_names: Names of the classes in the order of their indices.
        device_names: Names that the device ids index.
        image_names: Names that the image ids index.
        encoder_hash: `encoder_hash` of the encoder of the embeddings; empty where it is not known.
        pixels: Labelled pixels that the pixel head was fitted to; None without one.
        patch_size: (height, width) of a patch, px; None where it is not known.
    """

    entries: tuple[torch.Tensor, ...]
    class_names: tuple[str, ...] = ()
    device_names: tuple[str, ...] = ()
    image_names: tuple[str, ...] = ()
    encoder_hash: str = ""
    pixels: PixelSample | None = None
    patch_size: tuple[int, int] | None = None


def joined_entries(entries: Sequence[tuple[torch.Tensor, ...]]) -> tuple[torch.Tensor, ...]:
    """Return several tuples of tensors as one, each tensor concatenated."""
    return tuple(torch.cat(tensors) for tensors in zip(*entries, strict=True))


def arrays_of(content: BankContent) -> BankArrays:
    """Return a bank's content as numpy arrays, which share its memory where it is the processor's."""
    named = zip(REQUIRED, content.entries, strict=True)
    # A buffer of length 0 in a bank with entries is one that this bank does not need.
    entries = {n: t.detach().cpu().numpy() for n, t in named if len(t) or not len(content.entries[0])}
    names = content.class_names, content.device_names, content.image_names, content.encoder_hash
    return BankArrays(entries, *names, pixels=content.pixels, patch_size=content.patch_size)


def content_from(bank: BankArrays, device: torch.device | None = None) -> BankContent:
    """Return numpy arrays as a bank's content, copied, on the processor or another device."""
    entries = tuple(torch.from_numpy(bank.entries[name].copy()).to(device) for name in REQUIRED)
    names = bank.class_names, bank.device_names, bank.image_names
    return BankContent(entries, *names, bank.encoder_hash, bank.pixels, bank.patch_size)


def without(content: BankContent, *, device: str | None = None, image: str | None = None) -> BankContent:
    """Return the content without the entries of a device or of an image; of an image of a device where both are given.

    A class whose last entry goes is warned of. Names without entries go too.

    Raises:
        ValueError: If neither is given, or the bank has no such device or image.
    """
    bank = arrays_of(content)
    leaving, pixels = entries_to_remove(bank, device, image), pixels_without(bank, device, image)
    left = without_entries(bank, leaving, pixels, " undo() brings it back.")
    return content_from(left, content.entries[0].device)


def merged(content: BankContent, other: BankContent) -> BankContent:
    """Return the content with the entries of another bank after its own; the other's classes are mapped by name.

    Raises:
        ValueError: If the other bank has classes that this one has not, its entries are of another encoder, or it holds
            what no bank can.
    """
    taken = arrays_of(other)
    problem = damage(taken) if len(taken) else ""
    if problem:
        msg = f"The bank to take in is damaged ({problem}). Restore a copy, or fill it from the images again."
        raise ValueError(msg)
    return content_from(merged_arrays(arrays_of(content), taken), content.entries[0].device)


def described(content: BankContent) -> dict[str, Any]:
    """Return what `bank.content.described` says of a bank."""
    return described_arrays(arrays_of(content))


PIXELS = "pixels."
"""What names of the pixels' arrays begin with in a state dict."""

_BASIS = f"{PIXELS}basis"


def pixel_state(pixels: PixelSample | None) -> dict[str, Any]:
    """Return labelled pixels as tensors by name, and their basis; nothing where there are none."""
    if pixels is None:
        return {}
    return {_BASIS: pixels.basis, **{f"{PIXELS}{name}": torch.from_numpy(a) for name, a in pixels.arrays.items()}}


def pixels_of_state(state: Mapping[str, Any]) -> PixelSample | None:
    """Return the labelled pixels of `pixel_state` among other things; None where there are none."""
    if _BASIS not in state:
        return None
    return sample_of({name: state[f"{PIXELS}{name}"].numpy() for name in KINDS}, state[_BASIS])
