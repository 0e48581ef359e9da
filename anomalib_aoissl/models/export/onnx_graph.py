# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Export of a model with its class names: ONNX and OpenVINO, from any image size to class indices in one graph."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from anomalib_aoissl.deployment.files.onnx_checksum import append_checksum
from anomalib_aoissl.pixel_head.marking import marking
from anomalib_aoissl.plugin.export.log import set_aside

METADATA_KEY = "aoissl"
"""Key of the metadata in an ONNX file's properties; OpenVINO takes them over to ``framework`` of the IR's rt_info."""

_OPSET = 18
_TALKATIVE = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")
"""Loggers that say hundreds of lines of their own internals."""

_EXAMPLE_SIZE = (48, 40)  # unequal to each other and to common model sizes, so that no dimension is taken for another


def onnx_model(
    module: nn.Module, in_channels: int, *, constants: Mapping[str, str] | None = None, **options: Any
) -> Any:
    """Return the module as `onnx.ModelProto` with dynamic batch, height and width.

    Args:
        module: Images ``[B, C, H, W]`` in [0, 1] to a named tuple, such as `InferenceBatch`.
        in_channels: C.
        constants: Prefixes of the module's state, such as "model.bank.", whose tensors stay constants of the graph as
            they are, with what takes the prefix's place in their names.
        options: Further arguments of ``torch.onnx.export``.

    Raises:
        ModuleNotFoundError: If onnx or onnxscript is not installed.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        msg = f"{error.name} is needed for the export: pip install 'anomalib-aoissl[openvino]'."
        raise ModuleNotFoundError(msg, name=error.name) from error
    dimensions = {0: "batch_size", 2: "height", 3: "width"}
    example = torch.rand(2, in_channels, *_EXAMPLE_SIZE, device=next(module.parameters()).device)
    with torch.no_grad(), warnings.catch_warnings(), set_aside(*_TALKATIVE):
        warnings.simplefilter("ignore")  # torch's exporter warns of its own internals
        outputs: list[str] = []
        marks: list[str] = []
        traced = _Traced(module.eval(), outputs, marks)
        optimize = options.pop("optimize", True)
        program: Any = torch.onnx.export(
            traced,
            (example,),
            **{
                "opset_version": _OPSET,
                "input_names": ["input"],
                "dynamic_shapes": (dict.fromkeys(dimensions, torch.export.Dim.DYNAMIC),),
                "dynamo": True,
                "verbose": False,
                **options,
                "optimize": False,
            },
        )
        for output, name in zip(program.model.graph.outputs, [*outputs, *marks], strict=True):
            output.name = name
        with _kept(program, constants or {}):
            if optimize:
                program.optimize()
    model = program.model_proto
    del model.graph.output[len(outputs) :]  # the marked tensors keep their names inside the graph
    for axis, name in dimensions.items():
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name
    return model


def write_onnx(model: Any, path: Path, metadata: dict[str, Any]) -> Path:
    """Write an `onnx.ModelProto` with plain data, as JSON under `METADATA_KEY`, and a checksum; return the path."""
    import onnx

    onnx.helper.set_model_props(model, {METADATA_KEY: json.dumps(metadata)})
    onnx.save(model, path)
    append_checksum(path)
    return path


class _Traced(nn.Module):
    """The module with its marked tensors as further outputs, through which they get their names.

    Args:
        module: The module.
        outputs: Is filled with the names of the module's own outputs in each pass.
        marks: Is filled with the names of the marked tensors.
    """

    PREFIX = "module."

    def __init__(self, module: nn.Module, outputs: list[str], marks: list[str]) -> None:
        super().__init__()
        self.module = module

        def note(present: Iterable[str], marked: Iterable[str]) -> None:
            outputs[:], marks[:] = present, marked

        self._note = note  # a function, since torch.export takes back what a pass does to attributes

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the outputs that there are, then the marked tensors."""
        with marking() as marks:
            outputs: Any = self.module(images)
        present = {name: value for name, value in outputs._asdict().items() if value is not None}
        marked = {name: value for name, value in marks.items() if value is not None}
        self._note(present, marked)
        return *present.values(), *marked.values()


@contextmanager
def _kept(program: Any, prefixes: Mapping[str, str]) -> Iterator[None]:
    """Keep constants from being folded into others while the block runs, and rename them; meanwhile they are inputs."""
    graph, kept = program.model.graph, {}
    for name, value in list(graph.initializers.items()):
        prefix = next((prefix for prefix in prefixes if name.startswith(f"{_Traced.PREFIX}{prefix}")), None)
        if prefix is not None:
            kept[name] = (prefixes[prefix] + name.removeprefix(f"{_Traced.PREFIX}{prefix}"), value.const_value)
            value.const_value = None
            graph.inputs.append(graph.initializers.pop(name))
    yield
    graph = program.model.graph
    for value in [value for value in graph.inputs if value.name in kept]:
        graph.inputs.remove(value)
        value.name, value.const_value = kept[value.name]
        graph.initializers[value.name] = value
