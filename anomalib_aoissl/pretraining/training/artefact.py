# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What pretraining leaves on disk: a timm ``local-dir`` folder with a record beside the weights.

A folder is written whole or not at all, and takes the place of an artefact or of an empty folder only.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from timm.models import VisionTransformer
from timm.models import save_for_hf as _save_for_hf

from anomalib_aoissl.data.files import names_full_disk
from anomalib_aoissl.encoder.vit import PatchEncoder
from anomalib_aoissl.plugin.arguments import ArgumentError

RECORD_NAME = "pretraining.json"
WEIGHTS_NAME = "model.safetensors"
CACHE_VARIABLE = "ANOMALIB_AOISSL_CACHE"

_REQUIRED = {"config.json", WEIGHTS_NAME, RECORD_NAME}
_PICTURES = "pictures"

_LONGEST_NAME = 255  # bytes, on every common file system

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


def cache_key(encoder: PatchEncoder, objective: str, arguments: Mapping[str, Any], images: str, labelled: str) -> str:
    """Return a name for the result of a run: a hash of all that it depends on.

    Args:
        encoder: Before training; its architecture, size, constants and weights count.
        objective: Name of the objective.
        arguments: Its arguments, plain data.
        images: Fingerprint of the images.
        labelled: Fingerprint of the probe's images, which decide what weights are kept.
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
        "labelled": labelled,
    }
    text = json.dumps(content, sort_keys=True, default=str)
    return f"{objective}-{hashlib.blake2b(text.encode(), digest_size=10).hexdigest()}"


def check_replaceable(folder: str | Path, name: str = "save_to") -> None:
    """Validate that nothing of the user's is lost where an artefact is written to a folder.

    Args:
        folder: The folder; it may be missing.
        name: Argument that names it.

    Raises:
        ArgumentError: If it is a file, or a folder that holds anything but an artefact.
    """
    folder = Path(folder).expanduser().absolute()
    if len(os.fsencode(folder.name)) > _LONGEST_NAME:
        msg = f"{name}={str(folder)!r}: the name has more than {_LONGEST_NAME} bytes. Give a shorter one."
        raise ArgumentError(msg)
    if not folder.exists():
        return
    found = {entry.name for entry in folder.iterdir()} if folder.is_dir() else {"(a file)"}
    foreign = sorted(found - _REQUIRED - {_PICTURES}) or sorted(_foreign_pictures(folder / _PICTURES))
    if found and (foreign or not found >= _REQUIRED):
        shown = ", ".join((foreign or sorted(found))[:3])
        msg = (
            f"{name}={str(folder)!r} must be a new or empty folder, or one that pretraining wrote; it holds {shown}, "
            "which would be deleted. Choose another folder."
        )
        raise ArgumentError(msg)


def _foreign_pictures(folder: Path) -> list[str]:
    """Return what a folder of an artefact's pictures holds beside those that pretraining draws."""
    entries = folder.iterdir() if folder.is_dir() else ()
    return [entry.name for entry in entries if not re.fullmatch(r"step_\d+\.png", entry.name)]


def save_encoder(encoder: PatchEncoder, folder: Path, record: Mapping[str, Any]) -> Path:
    """Write the encoder and its record to a folder that timm loads as ``local-dir:folder``; whole or not at all.

    An older artefact of that name is replaced.

    Raises:
        ArgumentError: If the folder holds anything else.
    """
    with _whole_folder(folder, "folder") as temporary:
        _write(encoder, temporary)
        (temporary / RECORD_NAME).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        (temporary / WEIGHTS_NAME).chmod(0o644)  # safetensors makes it private
    return Path(folder).expanduser().absolute()


def copy_folder(source: Path, target: Path) -> Path:
    """Copy a finished folder to another place, whole or not at all.

    Raises:
        ArgumentError: If the place holds anything but an artefact.
    """
    with _whole_folder(target, "save_to") as temporary:
        shutil.copytree(source, temporary, dirs_exist_ok=True)
    return Path(target).expanduser().absolute()


@contextmanager
def _whole_folder(folder: str | Path, name: str) -> Iterator[Path]:
    """Give a temporary neighbour of a folder, which takes the folder's name when the block ends well."""
    check_replaceable(folder, name)
    folder = Path(folder).expanduser().absolute()
    with names_full_disk(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=_hidden(folder), dir=folder.parent))
        try:
            yield temporary
            temporary.chmod(0o755)  # mkdtemp makes it private
            _take_name(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _hidden(folder: Path) -> str:
    """Return what the name of a temporary neighbour begins with; a name of full length leaves no room for more."""
    return f".{folder.name[:40]}."


def load_weights(vit: VisionTransformer, folder: Path) -> dict[str, Any]:
    """Load the weights of a folder that `save_encoder` wrote into the same transformer, and return the record.

    Raises:
        ValueError: If the folder is damaged; the message says to delete it.
    """
    try:
        record: dict[str, Any] = json.loads((folder / RECORD_NAME).read_text(encoding="utf-8"))
        weights = load_file(str(folder / WEIGHTS_NAME))
        damaged = [name for name, tensor in weights.items() if not bool(torch.isfinite(tensor).all())]
        if damaged or not isinstance(record["summary"], str):
            raise ValueError(f"numbers in {damaged} are not finite" if damaged else "no summary")  # noqa: TRY301
        vit.load_state_dict(weights)
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
        old = Path(tempfile.mkdtemp(prefix=_hidden(folder), dir=folder.parent))
        folder.replace(old / "old")
        temporary.replace(folder)
        shutil.rmtree(old, ignore_errors=True)
    else:
        temporary.replace(folder)
