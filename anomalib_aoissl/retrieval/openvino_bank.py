# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The memory bank in an OpenVINO model: named constants and the search over them, read and put in without torch.

The export marks the tensors at which the graph reads its bank (`TENSORS`). Between them the search and the look-ups are
built anew for the rows at hand, so that a model takes any number of rows; all other nodes stay what the export made
them. What the graph itself does not compute with (where rows came from) is in the runtime information.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .bank_arrays import ID_NAMES, BankArrays, damage
from .openvino_search import search
from .openvino_smoothing import smooth_shares

METADATA_PATH = ["framework", "aoissl"]
"""Where a model's runtime information holds class names, file format and the bank's description, as JSON."""

TENSORS = ("queries", "similarities", "neighbours", "vote_weights", "class_votes")
"""Marked tensors that every editable model has; ``patch_embeddings`` is needed to learn images only."""

_LOOKUPS = ("neighbour_labels", "neighbour_shares")  # a model votes for one of them
_PREFIX = "bank."


class NotEditableError(ValueError):
    """A model whose bank cannot be read or edited; the message says why and what to do."""


@dataclass(frozen=True)
class BankSettings:
    """What an edit must know beside the bank.

    Attributes:
        k: Neighbours that vote.
        image_size: (height, width) of the encoder's input, px.
        patch_size: (height, width) of a patch, px.
        budget: Rows that the bank was condensed to when the model was exported; None for any number.
        offsets: (down, right) in px of each patch grid on which a labelled image fills the bank; the first is (0, 0).
        smoothing: Times that the shares of the vote are smoothed.
    """

    k: int
    image_size: tuple[int, int]
    patch_size: tuple[int, int]
    budget: int | None
    offsets: tuple[tuple[int, int], ...] = ((0, 0),)
    smoothing: int = 0


def pack_description(bank: BankArrays, settings: BankSettings) -> dict[str, Any]:
    """Return what the graph does not hold of a bank, as plain data; ids are zlib and base64 of little-endian int32."""
    ids = {name: _packed(bank.rows[name]) for name in ID_NAMES}
    return {
        "version": 1,
        "k": settings.k,
        "image_size": list(settings.image_size),
        "patch_size": list(settings.patch_size),
        "budget": settings.budget,
        "offsets": [list(offset) for offset in settings.offsets],
        "smoothing": settings.smoothing,
        "encoder_hash": bank.encoder_hash,
        "device_names": list(bank.device_names),
        "image_names": list(bank.image_names),
        **ids,
    }


def settings_of(model: Any) -> BankSettings:
    """Return the settings that the export put into the model.

    Raises:
        NotEditableError: If the model has no bank.
    """
    description = _description(model)
    (height, width), (patch_height, patch_width) = description["image_size"], description["patch_size"]
    offsets = tuple((down, right) for down, right in description.get("offsets", [(0, 0)]))
    sizes = (height, width), (patch_height, patch_width)
    return BankSettings(description["k"], *sizes, description["budget"], offsets, description.get("smoothing", 0))


def bank_of(model: Any) -> BankArrays:
    """Return the bank that the model holds; its arrays share the model's memory.

    Raises:
        NotEditableError: If the model has no bank, or one that is damaged.
    """
    description, metadata = _description(model), read_metadata(model)
    constants = _constants(model)
    missing = [name for name in ("embeddings", "labels") if name not in constants]
    if missing:
        msg = f"The model's bank has no constant named {_PREFIX}{missing[0]}. Export the model again, to OpenVINO."
        raise NotEditableError(msg)
    try:
        rows = {**constants, **{name: _unpacked(description[name]) for name in ID_NAMES}}
    except (ValueError, zlib.error) as error:
        msg = f"The model's description of its bank is damaged ({error}). Restore a copy, or export it again."
        raise NotEditableError(msg) from error
    rows.setdefault("counts", np.ones(len(rows["labels"]), np.int32))
    devices, images = tuple(description["device_names"]), tuple(description["image_names"])
    bank = BankArrays(rows, tuple(metadata["class_names"]), devices, images, description["encoder_hash"])
    problem = damage(bank)
    if problem:
        msg = f"The model's bank is damaged ({problem}). Restore a copy of the model, or export it again."
        raise NotEditableError(msg)
    return bank


def with_bank(model: Any, bank: BankArrays) -> Any:
    """Return a copy of the model that searches this bank; the given one stays as it is.

    Args:
        model: `openvino.Model` whose export marked `TENSORS`.
        bank: The bank. Its classes are the model's, and may have new ones after them.

    Raises:
        NotEditableError: If the model's graph reads its bank in a way that cannot be built anew.
    """
    settings = settings_of(model)
    metadata = read_metadata(model)
    model = model.clone()
    tensors = _marked(model)
    new_classes = bank.class_names[len(metadata["class_names"]) :]
    if new_classes and "mean_shares" in tensors:
        raise NotEditableError(_no_new_classes(new_classes))
    searched = tensors["neighbours"].get_node().get_friendly_name()
    rows = {name: _constant(name, bank.rows[name]) for name in _graph_names(bank)}
    similarities, neighbours = search(tensors["queries"], rows["embeddings"], settings.k)
    _replace(tensors, "similarities", similarities)
    _rename(tensors, "neighbours", neighbours)
    _replace_lookups(tensors, rows, neighbours, len(bank.class_names))
    _validate(model, new_classes)  # infers the new shapes, which the classes' votes are counted in
    _add_classes(tensors, new_classes, len(bank.class_names), settings)
    _validate(model, new_classes)
    if searched in {node.get_friendly_name() for node in model.get_ordered_ops()}:
        msg = "The model reads its bank in another way than by its neighbours' labels. Export it from its checkpoint."
        raise NotEditableError(msg)
    metadata.update(class_names=list(bank.class_names), bank=pack_description(bank, settings))
    model.set_rt_info(json.dumps(metadata), METADATA_PATH)
    return model


def embedding_model(model: Any) -> Any:
    """Return the part of the model from images to the embeddings ``[S * B, P, D]`` of their patches on S grids.

    Raises:
        NotEditableError: If the export did not mark them.
    """
    import openvino

    return openvino.Model([_marked(model, ("patch_embeddings",))["patch_embeddings"]], model.get_parameters())


def read_metadata(model: Any) -> dict[str, Any]:
    """Return the plain data that the export put into the model; empty where there is none."""
    if not model.has_rt_info(METADATA_PATH):
        return {}
    return json.loads(model.get_rt_info(METADATA_PATH).astype(str))


# --- the graph ------------------------------------------------------------------------------------------------------


def _replace_lookups(tensors: dict[str, Any], rows: Mapping[str, Any], neighbours: Any, classes: int) -> None:
    """Have counts and labels, or classes' shares, of the neighbours looked up in the new rows."""
    from openvino import opset13 as ops

    values = {"neighbour_labels": rows["labels"], "neighbour_counts": rows["counts"]}
    if "neighbour_shares" in tensors:
        values["neighbour_shares"] = _shares(rows["labels"], classes)
    for name in values.keys() & tensors.keys():
        _replace(tensors, name, ops.gather(values[name], neighbours, np.int64(0)).output(0))


def _shares(labels: Any, classes: int) -> Any:
    """Return the share of each row's pixels that each class has, ``[N, C]``; folded when the model is compiled."""
    from openvino import opset13 as ops

    shown = [ops.convert(ops.equal(labels, np.uint8(index)), "f32") for index in range(classes)]
    return ops.concat([ops.reduce_mean(one, np.array([1]), True) for one in shown], 1)


def _add_classes(tensors: dict[str, Any], new_classes: Sequence[str], classes: int, settings: BankSettings) -> None:
    """Put the votes for new classes after those that the graph counts, pixel by pixel, and smooth them with those."""
    from openvino import opset13 as ops

    votes = tensors["class_votes"]  # [Q, C, L], or [Q, C, 1] of averages, which has them already
    known = votes.get_partial_shape()[1].get_length()
    if classes > known and len(tensors["vote_weights"].get_partial_shape()) != 2:
        raise NotEditableError(_no_new_classes(new_classes))
    weights = ops.unsqueeze(tensors["vote_weights"], np.int64(1))  # [Q, 1, k]
    new = []
    for index in range(known, classes):
        shown = ops.convert(ops.equal(tensors["neighbour_labels"], np.uint8(index)), "f32")  # [Q, k, L]
        new.append(ops.matmul(weights, shown, False, False))  # [Q, 1, L]
    if not new:
        return
    _replace(tensors, "class_votes", ops.concat([votes, *new], 1).output(0))
    if "smooth_shares" in tensors:
        sizes = settings.image_size, settings.patch_size
        shares = smooth_shares(tensors["class_votes"], classes, *sizes, settings.smoothing)
        _replace(tensors, "smooth_shares", shares)


def _replace(tensors: dict[str, Any], name: str, new: Any) -> None:
    """Have all that reads a marked tensor read another, which takes its name."""
    old = tensors[name]
    for reader in old.get_target_inputs():
        if reader.get_node().get_name() != new.get_node().get_name():
            reader.replace_source_output(new)
    _rename(tensors, name, new)


def _rename(tensors: dict[str, Any], name: str, new: Any) -> None:
    """Give a marked tensor's name to another one."""
    old = tensors[name]
    old.set_names(old.get_names() - {name})
    new.add_names({name})
    tensors[name] = new


def _validate(model: Any, new_classes: Sequence[str]) -> None:
    """Infer all shapes, and refuse a graph that does not fit together any more."""
    try:
        model.validate_nodes_and_infer_types()
    except RuntimeError as error:
        if new_classes:
            raise NotEditableError(_no_new_classes(new_classes)) from error
        msg = f"The model cannot take this bank ({error}). Export the model again from its checkpoint."
        raise NotEditableError(msg) from error


def _no_new_classes(new_classes: Sequence[str]) -> str:
    """Say why a model's classes are fixed."""
    return (
        f"The model cannot take the new classes {list(new_classes)}: it was exported with class_temperatures, "
        "class_thresholds or query_shifts, which are built for its own classes. Export one that was trained on them."
    )


# --- names and numbers ----------------------------------------------------------------------------------------------


def _marked(model: Any, required: tuple[str, ...] = TENSORS) -> dict[str, Any]:
    """Return the marked tensors by name.

    Raises:
        NotEditableError: If one that is required is not there.
    """
    known = {*TENSORS, *_LOOKUPS, "patch_embeddings", "neighbour_counts", "mean_shares", "smooth_shares"}
    found = {n: o for node in model.get_ordered_ops() for o in node.outputs() for n in o.get_names() if n in known}
    missing = [name for name in required if name not in found]
    if not missing and required is TENSORS and not any(name in found for name in _LOOKUPS):
        missing = list(_LOOKUPS)
    if missing:
        msg = f"The model's graph has no tensor named {missing}. Export it again with this version of the package."
        raise NotEditableError(msg)
    return found


def _graph_names(bank: BankArrays) -> list[str]:
    """Return the names of the arrays that the graph computes with."""
    return [name for name in bank.rows if name not in ID_NAMES]


def _constant(name: str, array: np.ndarray) -> Any:
    """Return a constant of the array under its stable name."""
    from openvino import opset13 as ops

    node = ops.constant(np.ascontiguousarray(array), name=f"{_PREFIX}{name}")
    node.output(0).set_names({f"{_PREFIX}{name}"})
    return node


def _constants(model: Any) -> dict[str, np.ndarray]:
    """Return the bank's constants by name, without the prefix."""
    nodes = {node.get_friendly_name(): node for node in model.get_ordered_ops() if node.get_type_name() == "Constant"}
    return {name.removeprefix(_PREFIX): node.data for name, node in nodes.items() if name.startswith(_PREFIX)}


def _description(model: Any) -> dict[str, Any]:
    """Return the bank's description in the model's runtime information."""
    description = read_metadata(model).get("bank")
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
