# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""One small model for all tests of bad models, its files, and ways to spoil them; made when they are first needed."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anomalib.engine import Engine
from editable_models import labelled, make_model, traced_once
from making_once import made_once

from anomalib_aoissl import AOISSLRetrieval
from anomalib_aoissl.bank.content import BankArrays
from anomalib_aoissl.bank.storage import read_bank, write_bank
from anomalib_aoissl.deployment.files.model_file import core
from anomalib_aoissl.deployment.inferencer import SegmentationOpenVINOInferencer
from anomalib_aoissl.pixel_head.learning.sample import PixelSample


def trained() -> Path:
    """Return the folder of the model and its checkpoint."""

    def fill(folder: Path) -> None:
        made = make_model(3, seed=1, head=None)
        torch.save(made, folder / "model.pt")
        engine = Engine(default_root_dir=folder, logger=False, accelerator="cpu")
        engine._setup_trainer(made)
        engine.trainer.strategy.connect(made)
        engine.trainer.save_checkpoint(folder / "model.ckpt")

    return made_once("small_model", fill)


def exports() -> Path:
    """Return the folder of the model's exports, which share one graph, and of the model with that graph."""

    def fill(folder: Path) -> None:
        made = traced_once(torch.load(trained() / "model.pt", weights_only=False))
        made.to_openvino(folder)
        made.to_onnx(folder)
        torch.save(made, folder / "model.pt")

    return made_once("small_exports", fill)


@cache
def model() -> AOISSLRetrieval:
    """Return a model of 72 patches of three images whose bank decides the classes; not to be changed."""
    return torch.load(trained() / "model.pt", weights_only=False)


def traced() -> AOISSLRetrieval:
    """Return the model that was exported: its exports are not traced again."""
    return torch.load(exports() / "model.pt", weights_only=False)


def exported() -> Path:
    """Return its ``.xml``; not to be changed."""
    return exports() / "weights" / "openvino" / "model.xml"


def onnx() -> Path:
    """Return its ``.onnx``; not to be changed."""
    return exports() / "weights" / "onnx" / "model.onnx"


def checkpoint() -> Path:
    """Return its checkpoint; not to be changed."""
    return trained() / "model.ckpt"


def bank() -> BankArrays:
    """Return its bank as arrays of their own, with one labelled pixel of each image."""
    content = model().model.bank.content()
    ids = np.arange(3, dtype=np.int32)
    floats, bytes_ = np.ones(3, np.float32), np.zeros(3, np.uint8)
    matrix = np.zeros((3, 4), np.int8)
    pixels = PixelSample(matrix, bytes_, 0 * ids, ids, floats, 0 * floats, bytes_, matrix[:, :0], basis="b")
    return replace(content, entries={name: array.copy() for name, array in content.entries.items()}, pixels=pixels)


def copied(folder: Path) -> Path:
    """Return a copy of the ``.xml`` and its ``.bin`` in a folder."""
    for suffix in (".xml", ".bin"):
        shutil.copy(exported().with_suffix(suffix), folder / f"model{suffix}")
    return folder / "model.xml"


def rewritten(folder: Path, change: Callable[[Any], None]) -> SegmentationOpenVINOInferencer:
    """Open the model after a change of its graph, written as other programs do, without a checksum."""
    import openvino

    graph = core().read_model(exported())
    change(graph)
    openvino.serialize(graph, folder / "model.xml", folder / "model.bin")
    return SegmentationOpenVINOInferencer(folder / "model.xml")


def change_constant(graph: Any, name: str, value: float) -> None:
    """Give a constant of a graph another first value."""
    from openvino import opset13 as ops

    node = next(node for node in graph.get_ops() if node.get_friendly_name() == name)
    values = node.data.copy()
    values.reshape(-1)[0] = value
    for reader in node.output(0).get_target_inputs():
        reader.replace_source_output(ops.constant(values, name=name).output(0))


def renamed(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))


def flipped(path: Path, place: float = 0.5) -> Path:
    """Flip a bit of a file at a part of its length."""
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 4
    path.write_bytes(content)
    return path


def cut(path: Path, share: float = 0.5) -> Path:
    """Leave a share of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    return path


def spoilt_bank(folder: Path, name: str, value: Any, **fields: Any) -> BankArrays:
    """Write and read a bank file whose array has a value in its first place, in its type or in that of the value."""
    content = bank()
    entries, pixels = dict(content.entries), content.pixels
    assert pixels is not None
    if name.startswith("pixels."):
        array = getattr(pixels, name.removeprefix("pixels.")).copy()
        array.reshape(-1)[0] = value
        pixels = replace(pixels, **{name.removeprefix("pixels."): array})
    elif name:
        entries[name] = value if isinstance(value, np.ndarray) else entries[name].copy()
        entries[name].reshape(-1)[0] = entries[name].reshape(-1)[0] if isinstance(value, np.ndarray) else value
    path = write_bank(replace(content, entries=entries, pixels=pixels, **fields), folder / "bank.safetensors")
    return read_bank(path)


def picture() -> np.ndarray:
    """Return a picture ``[40, 70, 3]`` as a camera gives it."""
    return (255 * labelled(1, seed=9)[0][0]).byte().permute(1, 2, 0).numpy()


def spoilt_checkpoint(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """Return a checkpoint after a change of its content."""
    content = torch.load(checkpoint(), weights_only=True)
    change(content)
    torch.save(content, folder / "model.ckpt")
    return folder / "model.ckpt"
