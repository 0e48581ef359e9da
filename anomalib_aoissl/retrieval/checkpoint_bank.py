# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Banks out of checkpoints and into them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from anomalib_aoissl.checkpoints import CheckpointError, check_content, read_checkpoint
from anomalib_aoissl.files import whole_file
from anomalib_aoissl.pixel_head.filters import filter_counts

from .bank_arrays import BankArrays, damage
from .bank_storage import BankFileError, check_encoder
from .editing import ROW_BUFFERS, BankContent, arrays_of, pixel_state, pixels_of_state
from .openvino_head import content_of as content_of_head
from .openvino_refitting import refitted_head

CHECKPOINT_SUFFIX = ".ckpt"
_PREFIX = "model.bank."
_NAMES = f"{_PREFIX}_extra_state"
_HEAD = "model.head."


def load_content(path: str | Path, encoder: str = "") -> BankContent:
    """Return the bank in a bank file or, where the path ends with ``.ckpt``, in a checkpoint.

    Args:
        path: File.
        encoder: `encoder_hash` of the encoder that it is to be used with; not checked if empty.

    Raises:
        BankFileError: If the file is missing, damaged, has no bank, or its bank is of another encoder.
    """
    if Path(path).suffix != CHECKPOINT_SUFFIX:
        from .bank_file import load_bank  # not above, since it loads timm, which a checkpoint alone does not need

        return load_bank(path, encoder)
    content = content_of(load_checkpoint(path))
    check_encoder(path, content.encoder_hash, encoder)
    return content


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Return a checkpoint that holds a bank, read without running code from the file.

    Raises:
        BankFileError: If the file is missing, damaged, or has no bank.
    """
    try:
        checkpoint = read_checkpoint(path)
        check_content(checkpoint, str(path))
        check_bank_of(checkpoint, str(path))
    except CheckpointError as error:
        raise BankFileError(str(error)) from error
    return checkpoint


def check_bank_of(checkpoint: Mapping[str, Any], source: str) -> None:
    """Validate that a checkpoint holds a bank, and that the bank is possible.

    Args:
        checkpoint: The checkpoint.
        source: What it is called in errors, such as its file.

    Raises:
        CheckpointError: If it has none, or what it holds does not fit together.
    """
    state = checkpoint["state_dict"]
    missing = [name for name in (*(f"{_PREFIX}{name}" for name in ROW_BUFFERS), _NAMES) if name not in state]
    if missing:
        msg = f"{source}: is no checkpoint of AOISSLRetrieval, since it has no {missing[0]}. Give one that has a bank."
        raise CheckpointError(msg)
    try:
        problem = damage(arrays_of(content_of(checkpoint)))
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        problem = f"{type(error).__name__}: {error}"
    if problem:
        msg = f"{source}: its memory bank is impossible ({problem}). Restore a copy, or train again."
        raise CheckpointError(msg)


def content_of(checkpoint: Mapping[str, Any]) -> BankContent:
    """Return the bank of a checkpoint that `load_checkpoint` gave."""
    state: dict[str, Any] = checkpoint["state_dict"]
    names = state[_NAMES]
    rows = [state[f"{_PREFIX}{name}"] for name in ROW_BUFFERS]
    counts = state.get(f"{_PREFIX}counts", torch.empty(0))
    counts = counts if len(counts) else torch.ones_like(rows[ROW_BUFFERS.index("device_ids")])
    classes, devices, images = (tuple(names[key]) for key in ("class_names", "device_names", "image_names"))
    hashed, pixels = names.get("encoder_hash", ""), pixels_of_state(names)
    return BankContent((*rows, counts), classes, devices, images, hashed, pixels)


def put_content(checkpoint: dict[str, Any], content: BankContent) -> dict[str, Any]:
    """Return the checkpoint with another bank of the same classes; everything else is shared with the given one."""
    rows = dict(zip(ROW_BUFFERS, content.rows[:-1], strict=True))
    rows["counts"] = content.rows[-1] if bool((content.rows[-1] != 1).any()) else content.rows[-1][:0]
    names = {key: list(getattr(content, key)) for key in ("class_names", "device_names", "image_names")}
    state = {**checkpoint["state_dict"], **{f"{_PREFIX}{name}": tensor for name, tensor in rows.items()}}
    state[_NAMES] = {**names, "encoder_hash": content.encoder_hash, **pixel_state(content.pixels)}
    return {**checkpoint, "state_dict": state}


def save_checkpoint(checkpoint: dict[str, Any], path: str | Path) -> None:
    """Write a checkpoint, whole or not at all."""
    with whole_file(path) as temporary:
        torch.save(checkpoint, temporary)


def refitted_checkpoint(checkpoint: dict[str, Any], bank: BankArrays) -> dict[str, Any]:
    """Return the checkpoint with its pixel head fitted on to the labelled pixels of a bank; as it is without a head."""
    state, arguments = checkpoint["state_dict"], checkpoint["hyper_parameters"]
    arrays = {key.removeprefix(_HEAD): value.numpy() for key, value in state.items() if key.startswith(_HEAD)}
    fitted = {name: array for name, array in arrays.items() if len(array)}
    if "first_0" not in fitted:
        return checkpoint
    sizes = {"fine": filter_counts(arguments["in_channels"])[0], "tokens": arrays["directions"].shape[1]}
    head = content_of_head({**sizes, "per_image": 0, "basis": ""}, fitted)
    layers = refitted_head(head, bank, arguments["seed"]).arrays
    new = {f"{_HEAD}{name}": torch.from_numpy(array) for name, array in layers.items()}
    return {**checkpoint, "state_dict": {**state, **new}}
