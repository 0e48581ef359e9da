# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What is to be known of an exported model on this machine, and what is unusual about it; needs no torch."""

from __future__ import annotations

import json
import os
import platform
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from anomalib_aoissl.bank.content import described
from anomalib_aoissl.data.describing.file_format import FileFormat
from anomalib_aoissl.data.quality.picture_quality import LabelledQuality

from ..files.companions import files_of, report_path
from ..files.file_pair import has_checksum
from ..files.model_file import core
from ..graph.bank import NotEditableError, bank_of, head_of, read_metadata, settings_of
from ..graph.nodes import named_tensors
from ..inferencer import SegmentationOpenVINOInferencer
from .findings import Finding, findings

if TYPE_CHECKING:
    import openvino

PACKAGES = (
    "openvino",
    "numpy",
    "opencv-python-headless",
    "opencv-python",
    "pillow",
    "tifffile",
    "imagecodecs",
    "safetensors",
    "jsonargparse",
)
"""Packages that the line uses; any OpenCV will do."""

DISTRIBUTIONS = ("anomalib-aoissl", "anomalib-aoissl-line")
"""What this package is installed as: with torch, and without."""

_FLOATS = ("f16", "bf16", "f32", "f64")  # the coarsest first

_BITS = {"i8": "8 bits", "u8": "8 bits", "f16": "16 bits", "bf16": "16 bits"}


@dataclass(frozen=True)
class Diagnosis:
    """All that is known of a model on this machine.

    Attributes:
        path: The model's file.
        megabytes: Of its files.
        versions: Of Python and of each installed package, by name.
        devices: Full names of OpenVINO's devices by their short ones.
        device: The one that it runs on.
        cores: Processors that this program may use.
        facts: What the model says of itself, by name.
        gate: Report of the gate behind its export; None where it was not run or is not known.
        bank: What the bank holds, as `described` gives it; None where there is none.
        latency: Seconds of single predictions, in rising order.
        opening: Seconds that opening and compiling took.
        picture: (height, width) of the picture that was timed, px.
        findings: What is unusual.
    """

    path: Path
    megabytes: float
    versions: Mapping[str, str]
    devices: Mapping[str, str]
    device: str
    cores: int
    facts: Mapping[str, Any]
    gate: Mapping[str, Any] | None
    bank: Mapping[str, Any] | None
    latency: list[float]
    opening: float
    picture: tuple[int, int]
    findings: list[Finding] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, such as for JSON."""
        values = {**vars(self), "path": str(self.path), "findings": [vars(finding) for finding in self.findings]}
        return {name: dict(value) if isinstance(value, Mapping) else value for name, value in values.items()}


def diagnose(
    path: str | Path, device: str = "CPU", image: str | Path | np.ndarray | None = None, rounds: int = 5
) -> Diagnosis:
    """Return what is to be known of an exported model, after having run it.

    Args:
        path: The model, ``.xml`` or ``.onnx``.
        device: OpenVINO device.
        image: Picture to time; noise of the model's size where there is none.
        rounds: Predictions that are timed, after one that is not.

    Raises:
        ValueError: If the model cannot be opened or run; the message says why.
        FileNotFoundError: If it does not exist.
        ImportError: If OpenVINO is not installed.
    """
    path, started = Path(path), time.perf_counter()
    inferencer = SegmentationOpenVINOInferencer(path, device)
    opening = time.perf_counter() - started
    model, metadata = inferencer._model, read_metadata(inferencer._model)
    facts = _facts(path, inferencer, metadata)
    height, width = facts["model_size"]
    if image is None:
        image = noise_picture(inferencer.file_format, (height, width), inferencer.in_channels)
        _take_as_labelled(inferencer, image)
    latency, picture = _timed(inferencer, image, rounds)
    bank = _bank(model)
    diagnosis = Diagnosis(
        path=path,
        megabytes=sum(file.stat().st_size for file in files_of(path)) / 1e6,
        versions={"python": platform.python_version(), **installed((*DISTRIBUTIONS, *PACKAGES))},
        devices={name: str(core().get_property(name, "FULL_DEVICE_NAME")) for name in core().available_devices},
        device=device,
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        facts=facts,
        gate=gate_of(path, metadata),
        bank=bank,
        latency=latency,
        opening=opening,
        picture=picture,
    )
    diagnosis.findings.extend(findings(diagnosis))
    return diagnosis


def installed(names: tuple[str, ...]) -> dict[str, str]:
    """Return the versions of the distributions that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def gate_of(path: Path, metadata: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the report of the gate in a model or beside it; None where there is none that can be read."""
    inside = metadata.get("gate")
    if isinstance(inside, dict):
        return inside
    try:
        content = json.loads(report_path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def weight_precision(model: openvino.Model) -> str:
    """Return in words how the weights of a graph are stored, its bank and its head left out."""
    sizes: Counter[str] = Counter()
    for node in model.get_ops():
        name = node.get_friendly_name()
        if node.get_type_name() == "Constant" and not name.startswith(("bank.", "head.", "pixels.")):
            sizes[node.get_element_type().get_type_name()] += node.data.nbytes
    most = _BITS.get(sizes.most_common(1)[0][0] if sizes else "f32", "32 bits")
    quantized = any(node.get_type_name() == "FakeQuantize" for node in model.get_ops())
    return f"{most}, activations in 8 bits" if quantized else most


def search_precision(model: openvino.Model) -> str | None:
    """Return the type in which a bank is searched, such as "f32"; None where there is no search."""
    found = named_tensors(model)
    if not {"queries", "similarities"} <= found.keys():
        return None
    seen, waiting, types = set(), [found["similarities"].get_node()], []
    while waiting:
        node = waiting.pop()
        if node.get_name() in seen or node.get_type_name() == "Constant":
            continue
        seen.add(node.get_name())
        types += [port.get_element_type().get_type_name() for port in node.outputs()]
        if "queries" not in {name for port in node.outputs() for name in port.get_names()}:
            waiting += [port.get_node() for port in node.input_values()]
    floats = [kind for kind in types if kind in _FLOATS]
    return min(floats, key=_FLOATS.index, default="f32")


def _facts(path: Path, inferencer: SegmentationOpenVINOInferencer, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a model says of itself."""
    model = inferencer._model
    says_runtime = model.has_rt_info("Runtime_version")
    editable, head, settings = True, None, None
    try:
        settings, head = settings_of(model), head_of(model)
    except NotEditableError:
        editable = False
    return {
        "classes": list(inferencer.class_names),
        "planes": inferencer.in_channels,
        "file_format": inferencer.file_format.to_dict(),
        "model_size": _model_size(inferencer),
        "tiling": metadata.get("tiling"),
        "can_abstain": metadata.get("abstention") is not None,
        "abstains_above": inferencer.threshold,
        "knows_labelled_pictures": metadata.get("quality") is not None,
        "weights": weight_precision(model),
        "search": search_precision(model),
        "computes_in": inferencer._target[1].get("INFERENCE_PRECISION_HINT"),
        "editable": editable,
        "decided_by": "pixel head" if head is not None or not editable else "bank",
        "budget": None if settings is None else settings.budget,
        "exported_with": str(model.get_rt_info("Runtime_version").astype(str)) if says_runtime else "",
        "checksum": has_checksum(path) if path.suffix == ".xml" else None,
    }


def _model_size(inferencer: SegmentationOpenVINOInferencer) -> list[int]:
    """Return height and width of what a model sees at once, px."""
    if inferencer.tiling is not None:
        return list(inferencer.tiling.size)
    outputs = inferencer._compiled(np.zeros((1, inferencer.in_channels, 64, 64), np.float32))
    return [int(side) for side in outputs["anomaly_map"].shape[-2:]]


def _bank(model: openvino.Model) -> dict[str, Any] | None:
    """Return what the bank holds; None where there is none."""
    try:
        return described(bank_of(model))
    except NotEditableError:
        return None


def noise_picture(file_format: FileFormat, size: tuple[int, int], planes: int) -> np.ndarray:
    """Return an array ``[H, W, C]`` uint8 of noise, with the channels that a camera of the model's pictures gives."""
    channels = sum(file_format.planes or ()) or planes  # one or two are packed to three planes when they are read
    return np.random.default_rng(0).integers(0, 256, (*size, channels), dtype=np.uint8)


def _take_as_labelled(inferencer: SegmentationOpenVINOInferencer, image: np.ndarray) -> None:
    """Compare pictures with this one, which is then no fault; it is measured all the same, which takes its time."""
    quality = inferencer._loaded.quality
    if quality is not None:
        quality = LabelledQuality.of([("", inferencer._read(image, "rgb"))], quality.size)
    inferencer._loaded = replace(inferencer._loaded, quality=quality, own_novelty=None)


def _timed(
    inferencer: SegmentationOpenVINOInferencer, image: str | Path | np.ndarray, rounds: int
) -> tuple[list[float], tuple[int, int]]:
    """Return the seconds of so many predictions, in rising order, and the picture's (height, width)."""
    result, times = inferencer.predict(image), []
    for _ in range(rounds):
        started = time.perf_counter()
        result = inferencer.predict(image)
        times.append(time.perf_counter() - started)
    height, width = result.class_map.shape
    return sorted(times), (height, width)
