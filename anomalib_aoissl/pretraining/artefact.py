# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What pretraining leaves on disk: a timm ``local-dir`` folder with a record beside the weights."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from timm.models import VisionTransformer
from timm.models import save_for_hf as _save_for_hf

from anomalib_aoissl.encoder import PatchEncoder

__all__ = ["RECORD_NAME", "WEIGHTS_NAME", "cache_folder", "cache_key", "copy_folder", "load_weights", "save_encoder"]

RECORD_NAME = "pretraining.json"
WEIGHTS_NAME = "model.safetensors"
CACHE_VARIABLE = "ANOMALIB_AOISSL_CACHE"

_FORMAT = 1  # raise it when the same arguments give another result


def cache_folder(chosen: str | Path | None = None) -> Path:
    """Return where pretrained encoders are kept.

    That is ``chosen``, else the environment's ANOMALIB_AOISSL_CACHE, else the user's cache folder.
    """
    if chosen is not None:
        return Path(chosen).expanduser()
    if os.environ.get(CACHE_VARIABLE):
        return Path(os.environ[CACHE_VARIABLE]).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("anomalib-aoissl", appauthor=False) / "pretraining"


def cache_key(encoder: PatchEncoder, objective: str, arguments: Mapping[str, Any], images: str) -> str:
    """Return a name for the result of a run: a hash of all that it depends on.

    Args:
        encoder: Before training; its architecture, size, constants and weights count.
        objective: Name of the objective.
        arguments: Its arguments, plain data.
        images: Fingerprint of the images.
    """
    weights = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(encoder.vit.state_dict().items()):
        weights.update(name.encode())
        weights.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    content = {
        "format": _FORMAT,
        "encoder": encoder.describe(),
        "image_size": list(encoder.image_size),
        "in_channels": encoder.in_channels,
        "weights": weights.hexdigest(),
        "objective": objective,
        "arguments": dict(arguments),
        "images": images,
    }
    text = json.dumps(content, sort_keys=True, default=str)
    return f"{objective}-{hashlib.blake2b(text.encode(), digest_size=10).hexdigest()}"


def save_encoder(encoder: PatchEncoder, folder: Path, record: Mapping[str, Any]) -> Path:
    """Write the encoder and its record to a folder that timm loads as ``local-dir:folder``; whole or not at all.

    The files are written to a temporary neighbour, which then takes the folder's name. An older folder of that name
    is replaced.
    """
    folder = Path(folder).expanduser().absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        _write(encoder, temporary)
        (temporary / RECORD_NAME).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        temporary.chmod(0o755)  # mkdtemp and safetensors make them private
        (temporary / WEIGHTS_NAME).chmod(0o644)
        _take_name(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def copy_folder(source: Path, target: Path) -> Path:
    """Copy a finished folder to another place, whole or not at all."""
    target = Path(target).expanduser().absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        shutil.copytree(source, temporary, dirs_exist_ok=True)
        temporary.chmod(0o755)
        _take_name(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def load_weights(vit: VisionTransformer, folder: Path) -> dict[str, Any]:
    """Load the weights of a folder that `save_encoder` wrote into the same transformer, and return the record.

    Raises:
        ValueError: If the folder is damaged; the message says to delete it.
    """
    try:
        record: dict[str, Any] = json.loads((folder / RECORD_NAME).read_text(encoding="utf-8"))
        vit.load_state_dict(load_file(str(folder / WEIGHTS_NAME)))
    except Exception as error:
        msg = f"{folder}: the pretrained encoder cannot be read ({error}). Delete the folder; the run then trains anew."
        raise ValueError(msg) from error
    return record


def _write(encoder: PatchEncoder, folder: Path) -> None:
    """Write config.json and model.safetensors as timm does."""
    vit = encoder.vit
    arguments = {**vit.aoissl_model_args, "img_size": list(encoder.image_size)}
    if encoder.in_channels != 3:
        arguments["in_chans"] = encoder.in_channels
    constants = {
        "mean": list(encoder.mean),
        "std": list(encoder.std),
        "input_size": [encoder.in_channels, *encoder.image_size],
        "fixed_input_size": True,
    }
    _save_for_hf(
        vit,
        str(folder),
        model_config={"pretrained_cfg": constants},
        model_args=arguments,
        safe_serialization=True,
    )


def _take_name(temporary: Path, folder: Path) -> None:
    """Give the temporary folder its name; an older folder steps aside first and is deleted after."""
    if folder.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        folder.replace(old / "old")
        temporary.replace(folder)
        shutil.rmtree(old, ignore_errors=True)
    else:
        temporary.replace(folder)
