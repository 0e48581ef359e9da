# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Banks out of checkpoints and into them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from anomalib_aoissl.bank.checking import damage
from anomalib_aoissl.bank.content import NAMES, REQUIRED, BankArrays
from anomalib_aoissl.bank.storage import BankFileError, check_encoder, read_bank
from anomalib_aoissl.data.files import whole_file
from anomalib_aoissl.data.quality.picture_quality import LabelledQuality
from anomalib_aoissl.deployment.editing.refitting import refitted_head
from anomalib_aoissl.deployment.graph.head import content_of as content_of_head
from anomalib_aoissl.encoder.checkpoints import CheckpointError, check_content, read_checkpoint
from anomalib_aoissl.models.checkpoint_mixin import CHECKPOINT_KEY
from anomalib_aoissl.pixel_head.filters import filter_counts

from .entries import pixel_state, pixels_of_state, tensors_of

CHECKPOINT_SUFFIX = ".ckpt"
_PREFIX = "model.bank."
_NAMES = f"{_PREFIX}_extra_state"
_HEAD = "model.head."
_PATCHES = "model.encoder.vit.patch_embed.proj.weight"


def load_content(path: str | Path, encoder: str = "") -> BankArrays:
    """Return the bank in a bank file or, where the path ends with ``.ckpt``, in a checkpoint.

    Args:
        path: File.
        encoder: Hash of the encoder that it is to be used with; not checked if empty.

    Raises:
        BankFileError: If the file is missing, damaged, has no bank, or its bank is of another encoder.
    """
    content = content_of(load_checkpoint(path)) if Path(path).suffix == CHECKPOINT_SUFFIX else read_bank(path)
    check_encoder(path, content.encoder_hash, encoder)
    return content


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Return a checkpoint that holds a bank, read without running code from the file.

    Raises:
        BankFileError: If the file is missing or damaged, or has no bank or an impossible one.
    """
    try:
        checkpoint = read_checkpoint(path)
    except CheckpointError as error:
        raise BankFileError(str(error)) from error
    check_content(checkpoint, str(path))
    if not len(check_bank_of(checkpoint, str(path))):
        msg = f"{path}: its memory bank holds no entry. Train the model, or give another checkpoint."
        raise BankFileError(msg)
    return checkpoint


def check_bank_of(checkpoint: Mapping[str, Any], source: str) -> BankArrays:
    """Return the bank of a checkpoint whose weights are finite; the bank is possible, or has no entries.

    Args:
        checkpoint: The checkpoint.
        source: What messages call it, such as its path.

    Raises:
        BankFileError: If the bank is missing or impossible.
    """
    state = checkpoint["state_dict"]
    missing = [name for name in (*(f"{_PREFIX}{name}" for name in REQUIRED[:-1]), _NAMES) if name not in state]
    if missing:
        msg = f"{source}: is no checkpoint of AOISSLRetrieval, since it has no {missing[0]}. Give one that has a bank."
        raise BankFileError(msg)
    try:
        content = content_of(checkpoint)
        problem = damage(content) if len(content.entries["embeddings"]) else ""
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        msg = f"{source}: its memory bank is damaged ({error!r}). Restore a copy."
        raise BankFileError(msg) from error
    if problem:
        raise _damaged(source, problem)
    return content


def check_dims(checkpoint: Mapping[str, Any], source: str, dims: int) -> None:
    """Validate that the bank of a checkpoint, which `check_bank_of` has seen, has embeddings of a model's size.

    Raises:
        BankFileError: If it has others.
    """
    stored = checkpoint["state_dict"][f"{_PREFIX}embeddings"].shape[1]
    if stored != dims:
        raise _damaged(source, f"{stored} dims, its encoder gives {dims}")


def _damaged(source: str, problem: str) -> BankFileError:
    """Return the error of a bank that cannot be."""
    return BankFileError(
        f"{source}: its memory bank is damaged ({problem}). Restore a copy, or train again, which takes seconds."
    )


def content_of(checkpoint: Mapping[str, Any]) -> BankArrays:
    """Return the bank of a checkpoint that `load_checkpoint` gave."""
    state: dict[str, Any] = checkpoint["state_dict"]
    names = state[_NAMES]
    entries = {name: state[f"{_PREFIX}{name}"] for name in REQUIRED[:-1]}  # a bank that is not condensed has no counts
    counts = state.get(f"{_PREFIX}counts", torch.empty(0))
    entries["counts"] = counts if len(counts) else torch.ones_like(entries["device_ids"])
    arrays = {name: tensor.cpu().numpy() for name, tensor in entries.items()}
    classes, devices, images = (tuple(names[key]) for key in NAMES)
    hashed, pixels = names.get("encoder_hash", ""), pixels_of_state(names)
    size = _patch_size(checkpoint)
    return BankArrays(arrays, classes, devices, images, hashed, pixels=pixels, patch_size=size)


def _patch_size(checkpoint: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the (height, width) of a patch, px; None where an older checkpoint of whole images does not say it."""
    state = checkpoint["state_dict"]
    size, weight = state[_NAMES].get("patch_size"), state.get(_PATCHES)
    arguments = checkpoint["hyper_parameters"]
    level = arguments.get("vote", {}).get("level", "patches")
    if size is None and weight is not None and level == "patches":
        size = weight.shape[-2:]
    return None if size is None else (int(size[0]), int(size[1]))


def put_content(checkpoint: dict[str, Any], content: BankArrays) -> dict[str, Any]:
    """Return the checkpoint with another bank of the same classes; everything else is shared with the given one.

    What its labelled pictures are like is known no more where the bank has images that the checkpoint's has not.
    """
    entries = tensors_of(content)
    if not bool((entries["counts"] != 1).any()):
        entries["counts"] = entries["counts"][:0]
    names: dict[str, Any] = {k: list(getattr(content, k)) for k in NAMES}
    if content.patch_size is not None:
        names["patch_size"] = list(content.patch_size)
    state = {**checkpoint["state_dict"], **{f"{_PREFIX}{name}": tensor for name, tensor in entries.items()}}
    known = checkpoint["state_dict"].get(_NAMES, {}).get("image_names", ())
    state[_NAMES] = {**names, "encoder_hash": content.encoder_hash, **pixel_state(content.pixels)}
    described = dict(checkpoint.get(CHECKPOINT_KEY, {}))
    quality = described.pop("quality", None)
    if quality is not None and not set(content.image_names) - set(known):
        left = LabelledQuality.from_dict(quality).among(content.image_names)
        described["quality"] = None if left is None else left.to_dict()
    return {**checkpoint, "state_dict": state, CHECKPOINT_KEY: described}


def save_checkpoint(checkpoint: dict[str, Any], path: str | Path) -> None:
    """Write a checkpoint, whole or not at all.

    Raises:
        OSError: If it cannot be written; what was there is left as it was.
    """
    with whole_file(path) as temporary:
        try:
            torch.save(checkpoint, temporary)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            msg = f"{path}: cannot be written ({reason}). Is the disk full? What was there is left as it was."
            raise OSError(msg) from error


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
