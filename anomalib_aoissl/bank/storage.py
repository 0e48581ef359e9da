# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Bank files read and written as numpy arrays, without torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from anomalib_aoissl.data.files import whole_file
from anomalib_aoissl.pixel_head.learning.sample import KINDS, PixelSample, sample_of

from .checking import damage
from .content import NAMES, BankArrays

METADATA_KEY = "anomalib_aoissl_bank"
"""Key of the names and the version in the file's metadata."""

VERSION = 1
"""Version of the file's form."""

_NAMES = (*NAMES, "encoder_hash")

_CHECKSUM = "sha256"
"""Where the checksum of all arrays and of the rest of the description is in the description."""

_PATCH_SIZE = "patch_size"

_WRITE = "python -m anomalib_aoissl bank export"

_PIXELS, _BASIS = "pixels.", "pixels_basis"
"""What the names of the pixels' arrays begin with, and where their basis is in the description."""


class BankFileError(ValueError):
    """A file whose bank cannot be used; the message names the file and what to do."""


def check_encoder(path: str | Path, filled_with: str, encoder: str) -> None:
    """Validate that a file's bank was filled with the model's encoder; an empty hash is not known.

    Raises:
        BankFileError: If the encoders differ.
    """
    if encoder and filled_with and encoder != filled_with:
        msg = (
            f"{path}: the bank was filled with the encoder {filled_with[:12]}, this model's is {encoder[:12]}. Train "
            "again to fill a new bank, or use the model that filled this one: the same weights, image_size and "
            "vote.level, and the same version of this package. Up to 0.2.0 the default encoder was "
            "aoissl_vit_tiny_patch8."
        )
        raise BankFileError(msg)


def read_bank(path: str | Path) -> BankArrays:
    """Return the bank in a bank file.

    Raises:
        BankFileError: If the file is missing, of another version, or no bank file; or if it was changed since it was
            written, or holds what no bank can.
    """
    entries, description = _read(Path(path))
    if _CHECKSUM in description and description.pop(_CHECKSUM) != _checksum(entries, description):
        msg = f"{path}: its checksum is another: the bank file was changed. Restore a copy, or fill it again."
        raise BankFileError(msg)
    if description.get("version") != VERSION:
        msg = (
            f"{path}: is a bank file of version {description.get('version')}, this package reads version {VERSION}. "
            f"Install the package that wrote it, or fill a bank from the images again."
        )
        raise BankFileError(msg)
    missing = [name for name in _NAMES if name not in description]
    try:
        bank = _bank_of(entries, description)
        problem = f"{missing} missing" if missing else damage(bank)
    except (TypeError, ValueError) as error:
        bank, problem = BankArrays({}), str(error)
    if problem:
        msg = f"{path}: the bank file is damaged ({problem}). Restore a copy, or fill it from the images again."
        raise BankFileError(msg)
    return bank


def _bank_of(entries: dict[str, np.ndarray], description: Mapping[str, Any]) -> BankArrays:
    """Return the bank of a file's arrays and its description."""
    extra = {key: value for key, value in description.items() if key not in (*_NAMES, "version")}
    classes, devices, images = (tuple(description.get(name, ())) for name in NAMES)
    pixels, size = _pixels(entries, extra.pop(_BASIS, None)), extra.pop(_PATCH_SIZE, None)
    if size is not None:
        height, width = size
        size = int(height), int(width)
    return BankArrays(entries, classes, devices, images, description.get("encoder_hash", ""), extra, pixels, size)


def _checksum(entries: Mapping[str, np.ndarray], description: Mapping[str, Any]) -> str:
    """Return 64 hexadecimal digits of all that a file holds."""
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    for name in sorted(entries):
        digest.update(f"{name} {entries[name].dtype.name} {entries[name].shape}".encode())
        digest.update(np.ascontiguousarray(entries[name]).data)
    return digest.hexdigest()


def _pixels(entries: dict[str, np.ndarray], basis: str | None) -> PixelSample | None:
    """Take the pixels' arrays out of a file's arrays; None where it has none."""
    found = {name: entries.pop(f"{_PIXELS}{name}") for name in KINDS if f"{_PIXELS}{name}" in entries}
    return sample_of(found, basis) if basis is not None and len(found) == len(KINDS) else None


def write_bank(bank: BankArrays, path: str | Path) -> Path:
    """Write a bank file, whole or not at all, and return the path.

    Raises:
        OSError: If it cannot be written; what was there is left as it was.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    description: dict[str, Any] = {**bank.extra, "version": VERSION, **{name: getattr(bank, name) for name in _NAMES}}
    entries = {name: np.ascontiguousarray(array) for name, array in bank.entries.items()}
    if bank.patch_size is not None:
        description[_PATCH_SIZE] = list(bank.patch_size)
    if bank.pixels is not None:
        entries |= {f"{_PIXELS}{name}": np.ascontiguousarray(array) for name, array in bank.pixels.arrays.items()}
        description[_BASIS] = bank.pixels.basis
    description[_CHECKSUM] = _checksum(entries, description)
    with whole_file(path) as temporary:
        try:
            save_file(entries, temporary, metadata={METADATA_KEY: json.dumps(description)})
        except SafetensorError as error:
            msg = f"{path}: cannot be written ({error}). Is the disk full? What was there is left as it was."
            raise OSError(msg) from error
    return Path(path)


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the file's arrays and its description."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        msg = f"{path}: the bank file does not exist. Write one: {_WRITE}."
        raise BankFileError(msg)
    try:
        with safe_open(path, framework="np") as file:
            description = json.loads((file.metadata() or {}).get(METADATA_KEY, "null"))
            entries = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        msg = f"{path}: cannot be read as a bank file ({error}). Restore a copy, or fill it from the images again."
        raise BankFileError(msg) from error
    if not isinstance(description, dict):
        msg = f"{path}: is a safetensors file, but no bank of this package. Write one: {_WRITE}."
        raise BankFileError(msg)
    return entries, description
