# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Export of a model with its class names: ONNX and OpenVINO, from any image size to class indices in one graph."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .files import whole_file

METADATA_KEY = "aoissl"
"""Key of the metadata in an ONNX file's properties; OpenVINO takes them over to ``framework`` of the IR's rt_info."""

_OPSET = 18
_EXAMPLE_SIZE = (48, 40)  # unequal to each other and to common model sizes, so that no dimension is taken for another


def export_onnx(
    module: nn.Module,
    path: Path,
    in_channels: int,
    metadata: dict[str, Any],
    *,
    internal: Sequence[str] = (),
    **options: Any,
) -> Path:
    """Write the module as ONNX with dynamic batch, height and width, and return the path.

    Args:
        module: Images ``[B, C, H, W]`` in [0, 1] to a named tuple, such as `InferenceBatch`.
        path: File to write, whole or not at all.
        in_channels: C.
        metadata: Plain data that goes along, as JSON under `METADATA_KEY`.
        internal: Names of outputs that stay tensors of the graph: what other outputs are computed from keeps its name,
            and the graph has only the outputs that anomalib's inferencers know.
        options: Further arguments of ``torch.onnx.export``.

    Raises:
        ModuleNotFoundError: If onnx or onnxscript is not installed.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        msg = f"{error.name} is needed for the export: pip install 'anomalib-aoissl[openvino]'."
        raise ModuleNotFoundError(msg, name=error.name) from error
    dimensions = {0: "batch_size", 2: "height", 3: "width"}
    example = torch.rand(2, in_channels, *_EXAMPLE_SIZE, device=next(module.parameters()).device)
    with torch.no_grad(), warnings.catch_warnings(), _quiet("torch.onnx", "onnxscript"):
        warnings.simplefilter("ignore")  # torch's exporter warns of its own internals
        outputs: Any = module.eval()(example)
        names = [name for name, value in outputs._asdict().items() if value is not None]
        program: Any = torch.onnx.export(
            module,
            (example,),
            **{
                "opset_version": _OPSET,
                "input_names": ["input"],
                "output_names": names,
                "dynamic_shapes": (dict.fromkeys(dimensions, torch.export.Dim.DYNAMIC),),
                "dynamo": True,
                "verbose": False,
                **options,
            },
        )
    model = program.model_proto
    for axis, name in dimensions.items():
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name
    for output in [output for output in model.graph.output if output.name in internal]:
        model.graph.output.remove(output)
    onnx.helper.set_model_props(model, {METADATA_KEY: json.dumps(metadata)})
    with whole_file(path) as temporary:
        onnx.save(model, temporary)
    return path


class _quiet:  # noqa: N801 - reads as the statement that it is
    """Hold back what these loggers say below an error while the block runs."""

    def __init__(self, *names: str) -> None:
        self.loggers = [logging.getLogger(name) for name in names]

    def __enter__(self) -> None:
        self.levels = [logger.level for logger in self.loggers]
        for logger in self.loggers:
            logger.setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        for logger, level in zip(self.loggers, self.levels, strict=True):
            logger.setLevel(level)
