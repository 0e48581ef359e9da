# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Checkpoints that are checked before they are loaded: torch itself does not look whether a file was changed."""

from __future__ import annotations

import pickle
import zipfile
import zlib
from collections.abc import Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io.wrapper import _WrappingCheckpointIO

source: ContextVar[str] = ContextVar("source", default="The checkpoint")
"""What messages call the checkpoint whose content is loaded: its path, where it is known."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message names the file and what to do."""


def check_file(path: str | Path) -> None:
    """Validate that a checkpoint's file is whole, by the checksums that torch writes into it.

    A file that is not there, or on another machine, is left to what loads it.

    Raises:
        CheckpointError: If it is cut, changed, or no checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        return
    try:
        with zipfile.ZipFile(path) as archive:
            changed = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError) as error:
        msg = f"{path}: cannot be read as a checkpoint ({error or type(error).__name__}). Restore a copy."
        raise CheckpointError(msg) from error
    if changed is not None:
        msg = f"{path}: cannot be read as a checkpoint: its part {changed} was changed. Restore a copy."
        raise CheckpointError(msg)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Return the content of a checkpoint, read without running code from the file.

    Raises:
        CheckpointError: If it cannot be read, or holds what no checkpoint does.
    """
    check_file(path)
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, KeyError, ValueError, pickle.UnpicklingError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        msg = f"{path}: cannot be read as a checkpoint ({reason}). Restore a copy."
        raise CheckpointError(msg) from error
    check_content(checkpoint, str(path))
    return checkpoint


def check_content(checkpoint: Any, path: str) -> None:
    """Validate that the weights in a checkpoint of our models are there and finite.

    Args:
        checkpoint: What was loaded.
        path: What messages call it.

    Raises:
        CheckpointError: If they are not.
    """
    state = checkpoint.get("state_dict") if isinstance(checkpoint, Mapping) else None
    if not isinstance(state, Mapping) or not any(str(key).startswith("model.") for key in state):
        msg = f"{path}: is no checkpoint of this package's models. Give one that anomalib train wrote."
        raise CheckpointError(msg)
    for key, value in state.items():
        number = isinstance(value, torch.Tensor) and value.is_floating_point() and str(key).startswith("model.")
        if number and not bool(torch.isfinite(value).all()):
            msg = f"{path}: {key} holds NaN or infinity, so the model would give masks of nothing. Restore a copy."
            raise CheckpointError(msg)


class CheckedCheckpointIO(_WrappingCheckpointIO):
    """Checks a file before another plugin loads it.

    Args:
        checkpoint_io: The plugin that loads and saves.
    """

    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the content of a checkpoint whose file is whole.

        Raises:
            CheckpointError: If it is not.
        """
        check_file(path)
        return super().load_checkpoint(path, *args, **kwargs)

    def teardown(self) -> None:
        """End the plugin that loads and saves."""
        if self.checkpoint_io is not None:
            self.checkpoint_io.teardown()
