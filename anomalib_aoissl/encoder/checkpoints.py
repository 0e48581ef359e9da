# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Checkpoints read without running code from them, and validated before anything is made of their content."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

_ADVICE = "Restore a copy, or train again."
_EXPORTED = (".xml", ".bin", ".onnx")


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message names the file and what to do."""


def check_file(path: str | Path) -> None:
    """Validate that a file is a whole archive of torch: it is there, and no byte of it has changed.

    A checkpoint that lies on the network is not looked at.

    Raises:
        CheckpointError: If it is missing, empty, cut off, or damaged.
    """
    if "://" in str(path):
        return
    path = Path(path)
    if not path.is_file():
        found = "is a folder, no checkpoint" if path.is_dir() else "the checkpoint does not exist"
        msg = f"{path}: {found}. Training writes one: weights/lightning/model.ckpt of its folder."
        raise CheckpointError(msg)
    if path.suffix.lower() in _EXPORTED:
        msg = f"{path}: is of an exported model. Give the checkpoint (.ckpt) that the model was exported from."
        raise CheckpointError(msg)
    if (problem := _damage(path)) is not None:
        msg = f"{path}: cannot be read as a checkpoint ({problem}). {_ADVICE}"
        raise CheckpointError(msg)


def _damage(path: Path) -> str | None:
    """Return what is wrong with a file as an archive, None where nothing is."""
    if path.stat().st_size == 0:
        return "the file is empty"
    try:
        with zipfile.ZipFile(path) as archive:
            changed = archive.testzip()  # torch writes a checksum for each record and does not look at it
    except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError):
        return "it is no checkpoint, or cut off"
    return None if changed is None else f"the bytes of its record {changed} have changed"


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Return the content of a checkpoint, on the processor.

    Raises:
        CheckpointError: If the file is missing or damaged, or holds something else.
    """
    check_file(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise unreadable(path, error) from error
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), Mapping):
        msg = f"{path}: cannot be read as a checkpoint (it holds no state_dict of a model). {_ADVICE}"
        raise CheckpointError(msg)
    return content


def unreadable(path: str | Path, error: Exception) -> CheckpointError:
    """Return the error of a checkpoint that torch cannot read."""
    cause = str(error).strip().partition(". ")[0].partition("\n")[0] or type(error).__name__
    return CheckpointError(f"{path}: cannot be read as a checkpoint ({cause}). {_ADVICE}")


def check_content(content: Mapping[str, Any], source: str) -> None:
    """Validate what a checkpoint holds, whichever model it is of.

    Args:
        content: The checkpoint.
        source: What it is called in errors, such as its file.

    Raises:
        CheckpointError: If a weight is no finite number, or class names are no names.
    """
    for name, tensor in content["state_dict"].items():
        if isinstance(tensor, torch.Tensor) and tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            msg = f"{source}: has numbers in {name} that are not finite (NaN or infinity). {_ADVICE}"
            raise CheckpointError(msg)
    names = content.get("anomalib_aoissl", {}).get("class_names", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        msg = f"{source}: its class names are {names!r}, which are no list of names. {_ADVICE}"
        raise CheckpointError(msg)
