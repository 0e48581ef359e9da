# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The bank file: a memory bank as safetensors with its names, written whole or not at all, checked when read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from anomalib_aoissl.data.indices import IGNORE_INDEX
from anomalib_aoissl.encoder import PatchEncoder
from anomalib_aoissl.files import whole_file

from .bank_storage import METADATA_KEY, BankFileError
from .editing import ROW_BUFFERS, BankContent

__all__ = ["METADATA_KEY", "BankFileError", "encoder_hash", "load_bank", "save_bank"]

VERSION = 1
"""Version of the file's form; a reader refuses others."""

_NAMES = (*ROW_BUFFERS, "counts")


def encoder_hash(encoder: PatchEncoder, options: Mapping[str, Any] | None = None) -> str:
    """Return 64 hexadecimal digits that tell encoders apart whose embeddings differ: weights, blocks, final norm.

    Args:
        encoder: The encoder.
        options: What else decides the embeddings, a model's `embedding_options`.
    """
    digest = hashlib.sha256(json.dumps([encoder.block_indices, encoder.normalize, encoder.patch_size]).encode())
    digest.update(json.dumps([encoder.mean, encoder.std]).encode())
    if options:
        digest.update(json.dumps(dict(options), sort_keys=True).encode())
    for name, tensor in sorted(encoder.vit.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def save_bank(content: BankContent, path: str | Path) -> Path:
    """Write the bank and return the path; a file that is there stays as it was if writing fails."""
    from safetensors.torch import save_file

    description = {
        "version": VERSION,
        "encoder_hash": content.encoder_hash,
        "class_names": content.class_names,
        "device_names": content.device_names,
        "image_names": content.image_names,
    }
    tensors = {name: tensor.cpu().contiguous() for name, tensor in zip(_NAMES, content.rows, strict=True)}
    with whole_file(path) as temporary:
        save_file(tensors, temporary, metadata={METADATA_KEY: json.dumps(description)})
    return Path(path)


def load_bank(path: str | Path, encoder: str = "") -> BankContent:
    """Return the bank in the file.

    Args:
        path: File that `save_bank` wrote.
        encoder: `encoder_hash` of the encoder that it is to be used with; not checked if empty.

    Raises:
        BankFileError: If the file is missing, damaged, of another version, or of another encoder.
    """
    tensors, description = _read(Path(path))
    if description.get("version") != VERSION:
        msg = (
            f"{path}: is a bank file of version {description.get('version')}, this package reads version {VERSION}. "
            "Install the package that wrote it, or fill a bank from the images again."
        )
        raise BankFileError(msg)
    problem = _damage(tensors, description)
    if problem:
        msg = f"{path}: the bank file is damaged ({problem}). Restore a copy, or fill it from the images again."
        raise BankFileError(msg)
    if encoder and description["encoder_hash"] and encoder != description["encoder_hash"]:
        msg = (
            f"{path}: the bank was filled with the encoder {description['encoder_hash'][:12]}, this model's is "
            f"{encoder[:12]}. Use that encoder (weights, image size and blocks) with the same retrieval and "
            "position_directions, or fill a bank from the images again."
        )
        raise BankFileError(msg)
    classes, devices, images = (tuple(description[key]) for key in ("class_names", "device_names", "image_names"))
    rows = tuple(tensors[name] for name in _NAMES)
    return BankContent(rows, classes, devices, images, description["encoder_hash"])


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return the file's tensors and its description."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        msg = f"{path}: the bank file does not exist. Write one with save_bank."
        raise BankFileError(msg)
    try:
        with safe_open(path, framework="pt") as file:
            description = json.loads((file.metadata() or {}).get(METADATA_KEY, "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError, ValueError) as error:
        msg = f"{path}: cannot be read as a bank file ({error}). Restore a copy, or fill it from the images again."
        raise BankFileError(msg) from error
    if not isinstance(description, dict):
        msg = f"{path}: is a safetensors file, but no bank of this package. Write one with save_bank."
        raise BankFileError(msg)
    return tensors, description


def _damage(tensors: dict[str, torch.Tensor], description: dict[str, Any]) -> str:
    """Return what does not fit together in a bank file; empty where everything does."""
    missing = [name for name in _NAMES if name not in tensors]
    missing += [key for key in ("encoder_hash", "class_names", "device_names", "image_names") if key not in description]
    if missing:
        return f"{missing} missing"
    lengths = {name: len(tensors[name]) for name in _NAMES}
    if len(set(lengths.values())) != 1 or tensors["embeddings"].ndim != 2 or tensors["labels"].ndim != 2:
        return f"rows of {lengths}"
    if not bool(tensors["embeddings"].isfinite().all()):
        return "embeddings that are not finite"
    labels = tensors["labels"][tensors["labels"] != IGNORE_INDEX]
    limits = {
        "labels": (labels, len(description["class_names"])),
        "device_ids": (tensors["device_ids"], len(description["device_names"])),
        "image_ids": (tensors["image_ids"], len(description["image_names"])),
    }
    for name, (values, limit) in limits.items():
        if len(values) and not 0 <= int(values.min()) <= int(values.max()) < limit:
            return f"{name} up to {int(values.max())}, but {limit} names"
    return ""
