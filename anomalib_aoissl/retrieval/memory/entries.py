# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Entries of a bank and labelled pixels as tensors by name, to and from the arrays of `bank.content`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from anomalib_aoissl.bank.content import REQUIRED, BankArrays
from anomalib_aoissl.pixel_head.learning.sample import KINDS, PixelSample, sample_of

Tensors = dict[str, torch.Tensor]
"""Tensors of the names in `bank.content.REQUIRED`, one entry of a bank in each of their first dimension."""


def concatenated(parts: Sequence[Tensors]) -> Tensors:
    """Return the entries of several parts, one after the other."""
    return {name: torch.cat([part[name] for part in parts]) for name in REQUIRED}


def chosen_entries(entries: Tensors, which: torch.Tensor) -> Tensors:
    """Return the entries at indices, or where a mask is true."""
    return {name: tensor[which.to(tensor.device)] for name, tensor in entries.items()}


def tensors_of(bank: BankArrays, device: torch.device | None = None) -> Tensors:
    """Return the entries of a bank as tensors, copied, on the processor or another device."""
    return {name: torch.from_numpy(bank.entries[name].copy()).to(device) for name in REQUIRED}


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
