# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Runners of an exported model, by the runtimes that may read it; needs no torch.

A runner takes images ``[B, C, H, W]`` float32 in [0, 1] and returns ``pred_mask``, ``anomaly_map`` ``[B, 1, h, w]`` and
``pred_score`` ``[B]`` by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .files.model_file import core
from .requests import SharedModel, with_defaults

if TYPE_CHECKING:
    import openvino

Runner = Callable[[np.ndarray], Mapping[str, np.ndarray]]
"""Images to outputs; a `NamedRunner` also says what computes them."""

OUTPUTS = ("pred_mask", "anomaly_map", "pred_score")
"""Outputs that a runner gives."""


@dataclass(frozen=True)
class NamedRunner:
    """A runner that says what computes its answers.

    Attributes:
        answer: The runner.
        runtime: Name and version, such as "ONNX Runtime 1.23.2".
    """

    answer: Runner
    runtime: str

    def __call__(self, images: np.ndarray) -> Mapping[str, np.ndarray]:
        """Return what the runner answers."""
        return self.answer(images)


def openvino_runner(model: openvino.Model, suffix: str = ".xml") -> NamedRunner:
    """Return a runner of an `openvino.Model`, compiled as its file is, for any number of pictures.

    Args:
        model: The model.
        suffix: Of the file that it was read from.
    """
    run = SharedModel(core().compile_model(model, "CPU", with_defaults("CPU", None)))

    def answer(images: np.ndarray) -> dict[str, np.ndarray]:
        outputs = run(np.ascontiguousarray(images, np.float32))
        return {name: np.array(outputs[name]) for name in OUTPUTS}

    return NamedRunner(answer, _openvino_name(suffix))


def inferencer_runner(path: Path) -> NamedRunner:
    """Return a runner of a model's file by the inferencer, which cuts pictures into tiles; masks have their size."""
    from .inferencer import SegmentationOpenVINOInferencer

    inferencer = SegmentationOpenVINOInferencer(path)
    # Pictures that answers are compared on need not be like the labelled ones.
    inferencer._loaded = replace(inferencer._loaded, quality=None, own_novelty=None)

    def answer(images: np.ndarray) -> dict[str, np.ndarray]:
        found = [inferencer.predict(np.ascontiguousarray(image.transpose(1, 2, 0))) for image in images]
        return {
            "pred_mask": np.stack([each.class_map for each in found])[:, np.newaxis],
            "anomaly_map": np.stack([each.novelty for each in found])[:, np.newaxis],
            "pred_score": np.array([each.score for each in found], np.float32),
        }

    return NamedRunner(answer, _openvino_name(path.suffix))


def onnx_runner(path: Path) -> NamedRunner:
    """Return a runner of an ONNX file: ONNX Runtime where it is installed, else OpenVINO."""
    try:
        import onnxruntime
    except ImportError:
        return openvino_runner(core().read_model(str(path)), suffix=path.suffix)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; it warns of constants that no node reads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def answer(images: np.ndarray) -> dict[str, np.ndarray]:
        outputs = session.run(list(OUTPUTS), {name: np.ascontiguousarray(images, np.float32)})
        return dict(zip(OUTPUTS, outputs, strict=True))

    return NamedRunner(answer, f"ONNX Runtime {onnxruntime.__version__}")


def _openvino_name(suffix: str) -> str:
    """Return the name of OpenVINO as what runs a file; an ONNX file goes through its reader of ONNX first."""
    import openvino

    name = f"OpenVINO {openvino.__version__.partition('-')[0]}"
    return f"{name}'s reader of ONNX" if suffix == ".onnx" else name
