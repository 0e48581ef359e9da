# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The memory bank in an OpenVINO model: named constants and the search over them, read and put in without torch.

The export marks the tensors at which the graph reads its bank (`SEARCHED`). Between them the search and the look-ups
are built anew for the entries at hand, so that a model takes any number of entries. All other nodes stay as the export
made them. So are the networks of a pixel head. What the graph itself does not compute with is held by a node that adds
nothing, or in the runtime information.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from anomalib_aoissl.bank.checking import damage
from anomalib_aoissl.bank.content import ID_NAMES, BankArrays
from anomalib_aoissl.bank.own_novelty import own_novelty
from anomalib_aoissl.data.quality.picture_quality import LabelledQuality

from .head import PIXELS, HeadContent, build_head, content_of, pixels_of
from .head import PREFIX as HEAD_PREFIX
from .head import TENSORS as HEAD_TENSORS
from .joint import JOINT, build_joint
from .nodes import constant, constants, hold, named_tensors, redirect, release, rename
from .search import search

if TYPE_CHECKING:
    import openvino

METADATA_PATH = ["framework", "aoissl"]
"""Where a model's runtime information holds class names, file format and the bank's description, as JSON."""

SEARCHED = ("queries", "similarities")
"""Marked tensors that every editable model has; ``patch_embeddings`` is needed to learn images only."""

VOTED = ("neighbours", "neighbour_labels", "vote_weights", "class_votes")
"""Those of a model whose bank votes."""

_PREFIX = "bank."

_VERSION = 2
"""Version of the bank's description."""


class NotEditableError(ValueError):
    """A model whose bank cannot be read or edited; the message says why and what to do."""


@dataclass(frozen=True)
class BankSettings:
    """What an edit must know beside the bank.

    Attributes:
        k: Neighbours that vote.
        image_size: (height, width) of the encoder's input, px.
        patch_size: (height, width) of a patch, px.
        budget: Entries that the bank was condensed to when the model was exported; None for any number.
        seed: Of what is random.
        aggregation: What a neighbour's vote weighs, "attention" or "similarity".
        temperature: Of the softmax of "attention".
    """

    k: int
    image_size: tuple[int, int]
    patch_size: tuple[int, int]
    budget: int | None
    seed: int = 0
    aggregation: str = "attention"
    temperature: float = 0.02


def pack_description(bank: BankArrays, settings: BankSettings, head: HeadContent | None = None) -> dict[str, Any]:
    """Return what the graph does not hold of a bank, as plain data; ids are zlib and base64 of little-endian int32."""
    ids = {name: _packed(bank.entries[name]) for name in ID_NAMES}
    return {
        "version": _VERSION,
        **asdict(settings),
        "head": None if head is None else head.describe(),
        "encoder_hash": bank.encoder_hash,
        "own_novelty": own_novelty(bank) if settings.patch_size != settings.image_size else None,
        "device_names": list(bank.device_names),
        "image_names": list(bank.image_names),
        **ids,
    }


def settings_of(model: openvino.Model) -> BankSettings:
    """Return the settings that the export put into the model.

    Raises:
        NotEditableError: If the model has no bank.
    """
    description = _description(model)
    (height, width), (patch_height, patch_width) = description["image_size"], description["patch_size"]
    sizes = (height, width), (patch_height, patch_width)
    voting = {name: description[name] for name in ("aggregation", "temperature") if name in description}
    return BankSettings(description["k"], *sizes, description["budget"], description["seed"], **voting)


def head_of(model: openvino.Model) -> HeadContent | None:
    """Return the pixel head that the model holds; None where its bank alone decides the classes.

    Raises:
        NotEditableError: If the model has no bank, or a head that is damaged.
    """
    description = _description(model)["head"]
    try:
        return None if description is None else content_of(description, constants(model, HEAD_PREFIX))
    except (KeyError, TypeError, ValueError) as error:
        msg = f"The model's pixel head is damaged ({error!r}). Restore a copy of the model, or export it again."
        raise NotEditableError(msg) from error


def bank_of(model: openvino.Model) -> BankArrays:
    """Return the bank that the model holds; its arrays share the model's memory.

    Raises:
        NotEditableError: If the model has no bank, or one that is damaged.
    """
    description, metadata = _description(model), read_metadata(model)
    stored = constants(model, _PREFIX)
    missing = _missing(model, description)
    if missing:
        msg = f"The model's bank has no constant named {missing[0]}. Export the model again, to OpenVINO."
        raise NotEditableError(msg)
    try:
        entries = {**stored, **{name: _unpacked(description[name]) for name in ID_NAMES}}
        devices, images = tuple(description["device_names"]), tuple(description["image_names"])
        head, size = description["head"], settings_of(model).patch_size
        pixels = None if head is None else pixels_of(constants(model, PIXELS), head["basis"])
        entries.setdefault("counts", np.ones(len(entries["labels"]), np.int32))
        names = tuple(metadata["class_names"]), devices, images, description["encoder_hash"]
        bank = BankArrays(entries, *names, pixels=pixels, patch_size=size)
        problem = damage(bank)
    except (AttributeError, KeyError, TypeError, ValueError, zlib.error) as error:
        msg = f"The model's description of its bank is damaged ({error}). Restore a copy, or export it again."
        raise NotEditableError(msg) from error
    if problem:
        msg = f"The model's bank is damaged ({problem}). Restore a copy of the model, or export it again."
        raise NotEditableError(msg)
    return bank


def check_bank(model: openvino.Model) -> None:
    """Validate the bank of a model, where it has one that can be read.

    Raises:
        NotEditableError: If it is damaged or impossible.
    """
    description = read_metadata(model).get("bank")
    if not description or description.get("version") != _VERSION:
        return
    if not _missing(model, description):
        bank_of(model)
        head_of(model)


def without_bank(model: openvino.Model) -> openvino.Model:
    """Return a copy of the model that does not say that its bank can be edited."""
    model, metadata = model.clone(), read_metadata(model)
    metadata.pop("bank", None)
    model.set_rt_info(json.dumps(metadata), METADATA_PATH)
    return model


def with_bank(
    model: openvino.Model, bank: BankArrays, head: HeadContent | None = None, quality: LabelledQuality | None = None
) -> openvino.Model:
    """Return a copy of the model that searches this bank; the given one stays as it is.

    What its labelled pictures are like is known no more where the bank has new images, unless it is given.

    Args:
        model: `openvino.Model` whose export marked `SEARCHED`.
        bank: The bank. Its classes are the model's, and may have new ones after them.
        head: Its pixel head from now on, where it has one; None for the present one.
        quality: What its labelled pictures are like from now on.

    Raises:
        NotEditableError: If the model's graph reads its bank in a way that cannot be built anew.
    """
    settings, metadata = settings_of(model), read_metadata(model)
    head = head_of(model) if head is None else head
    model = model.clone()
    release(model)
    tensors = _marked(model, SEARCHED + (VOTED if head is None else HEAD_TENSORS))
    entries = {name: constant(f"{_PREFIX}{name}", bank.entries[name]) for name in _graph_names(bank)}
    held = []
    if head is None or JOINT in tensors:
        _vote_among(model, tensors, entries, settings.k, len(bank.class_names))
    else:  # an export of version 0.2.0, whose head alone decides the classes
        redirect(tensors, "similarities", search(tensors["queries"], entries["embeddings"], 1)[0])
        held += [entries["labels"], entries["counts"]]
    if head is not None:
        for name, tensor in build_head(tensors["fine_features"], tensors["coarse_features"], head).items():
            redirect(tensors, name, tensor)
        if JOINT in tensors:
            redirect(tensors, JOINT, build_joint(tensors, settings.image_size, settings.patch_size))
        pixels = {} if bank.pixels is None else bank.pixels.arrays
        held += [constant(f"{PIXELS}{name}", array) for name, array in pixels.items()]
        held += [constant(f"{HEAD_PREFIX}{name}", array) for name, array in head.arrays.items()]
    hold(model, held)
    _validate(model)
    known, before = (metadata.get("bank") or {}).get("image_names"), metadata.pop("quality", None)
    if quality is None and before is not None and (known is None or not set(bank.image_names) - set(known)):
        quality = LabelledQuality.from_dict(before)
    if quality is not None and (left := quality.among(bank.image_names)) is not None:
        metadata["quality"] = left.to_dict()
    metadata.update(class_names=list(bank.class_names), bank=pack_description(bank, settings, head))
    metadata.pop("gate", None)  # which compared another bank
    model.set_rt_info(json.dumps(metadata), METADATA_PATH)
    return model


def set_tiling(model: openvino.Model, tiling: Mapping[str, Any]) -> None:
    """Have the model say that it takes such tiles; how labelled pictures were, as it saw them, is known no more."""
    metadata = read_metadata(model)
    metadata.pop("quality", None)
    metadata["tiling"] = dict(tiling)
    model.set_rt_info(json.dumps(metadata), METADATA_PATH)


def part_model(model: openvino.Model, names: Sequence[str]) -> openvino.Model:
    """Return the part of the model from images to marked tensors or outputs.

    Raises:
        NotEditableError: If the export did not mark them.
    """
    import openvino

    tensors = _marked(model, tuple(names))
    return openvino.Model([tensors[name] for name in names], model.get_parameters())


def read_metadata(model: openvino.Model) -> dict[str, Any]:
    """Return the plain data that the export put into the model; empty where there is none.

    Raises:
        ValueError: If it is damaged.
    """
    if not model.has_rt_info(METADATA_PATH):
        return {}
    content = json.loads(model.get_rt_info(METADATA_PATH).astype(str))
    if not isinstance(content, dict):
        msg = f"what the model says of itself is a {type(content).__name__}"
        raise TypeError(msg)
    return content


# --- the graph ------------------------------------------------------------------------------------------------------


def _vote_among(
    model: openvino.Model, tensors: dict[str, openvino.Output], entries: Mapping[str, Any], k: int, classes: int
) -> None:
    """Redirect the search and the count of the bank's vote to new entries."""
    from openvino import opset13 as ops

    similarities, neighbours = search(tensors["queries"], entries["embeddings"], k)
    redirect(tensors, "similarities", similarities)
    rename(tensors, "neighbours", neighbours)
    for name, values in (("neighbour_labels", entries["labels"]), ("neighbour_counts", entries["counts"])):
        if name in tensors:
            redirect(tensors, name, ops.gather(values, neighbours, np.int64(0)).output(0))
    _validate(model)  # the votes' shapes follow from the entries, which may be fewer than k
    known = tensors["class_votes"].get_partial_shape()[1].get_length()
    weights = ops.unsqueeze(tensors["vote_weights"], np.int64(1))  # [Q, 1, k]
    new = []
    for index in range(known, classes):
        shown = ops.convert(ops.equal(tensors["neighbour_labels"], np.uint8(index)), "f32")  # [Q, k, L]
        new.append(ops.matmul(weights, shown, False, False))  # [Q, 1, L]
    if new:
        redirect(tensors, "class_votes", ops.concat([tensors["class_votes"], *new], 1).output(0))


def _validate(model: openvino.Model) -> None:
    """Infer all shapes, and raise where the graph does not fit together any more."""
    try:
        model.validate_nodes_and_infer_types()
    except RuntimeError as error:
        msg = f"The model cannot take this bank ({error}). Export the model again from its checkpoint."
        raise NotEditableError(msg) from error


# --- names and numbers ----------------------------------------------------------------------------------------------


def _marked(model: openvino.Model, required: tuple[str, ...]) -> dict[str, openvino.Output]:
    """Return all tensors that have a name, by name.

    Raises:
        NotEditableError: If one that is required is not there.
    """
    found = named_tensors(model)
    missing = [name for name in required if name not in found]
    if missing:
        msg = f"The model's graph has no tensor named {missing}. Export it again with this version of the package."
        raise NotEditableError(msg)
    return found


def _graph_names(bank: BankArrays) -> list[str]:
    """Return the names of the arrays that the graph computes with."""
    return [name for name in bank.entries if name not in ID_NAMES]


def _missing(model: openvino.Model, description: Mapping[str, Any]) -> list[str]:
    """Return the names of constants without which a bank cannot be read; an ONNX file has none of its head."""
    stored = constants(model, _PREFIX)
    missing = [f"{_PREFIX}{name}" for name in ("embeddings", "labels") if name not in stored]
    if description.get("head") is not None and not constants(model, HEAD_PREFIX):
        missing.append(f"{HEAD_PREFIX}*")
    return missing


def _description(model: openvino.Model) -> dict[str, Any]:
    """Return the bank's description in the model's runtime information."""
    description = read_metadata(model).get("bank")
    if description and description.get("version") != _VERSION:
        msg = (
            "The model was exported by version 0.1.0. It still predicts, but this version cannot edit its bank, which "
            "has embeddings of another kind. Train again (anomalib train --model AOISSLRetrieval), and export."
        )
        raise NotEditableError(msg)
    if not description:
        msg = (
            "The model has no memory bank that can be edited: it is no AOISSLRetrieval, or was exported by an older "
            "version. Export it again: anomalib export --model AOISSLRetrieval --export_type openvino."
        )
        raise NotEditableError(msg)
    return description


def _packed(ids: np.ndarray) -> str:
    """Return integers as text."""
    return base64.b64encode(zlib.compress(ids.astype("<i4").tobytes())).decode()


def _unpacked(text: str) -> np.ndarray:
    """Return the integers of `_packed`."""
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), "<i4").astype(np.int32)
