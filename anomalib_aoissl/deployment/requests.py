# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Compiled OpenVINO models that several threads call at once, and what they are compiled with; needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from queue import LifoQueue
from typing import TYPE_CHECKING, Any

import numpy as np

from .files.model_file import core, reason_of

if TYPE_CHECKING:
    import openvino

_DEFAULTS = {"INFERENCE_PRECISION_HINT": "f32"}

_DEFAULTS_OF_CPU = {"CPU_RUNTIME_CACHE_CAPACITY": 0}
"""OpenVINO's processor plugin keeps what it prepared for each image size, 5,000 at most: some MB for each new size."""

_OF_OTHERS = {"AUTO", "MULTI", "HETERO", "BATCH"}
"""Devices of OpenVINO that hand the work to other devices."""


def with_defaults(device: str, config: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the configuration of a device: the defaults, and over them what a user gives."""
    of_device = _DEFAULTS_OF_CPU if device.upper().partition(".")[0] == "CPU" else {}
    return {**_DEFAULTS, **of_device, **(config or {})}


def check_device(device: str) -> None:
    """Validate that OpenVINO has a device here; "AUTO:GPU,CPU" and its like name several.

    Raises:
        ValueError: If it has not.
    """
    kind, _, others = device.partition(":")
    available = core().available_devices
    known = {*available, *(name.partition(".")[0] for name in available), *(f"{name}.0" for name in available)}
    named = [kind, *(name.lstrip("-").partition("(")[0] for name in others.split(",") if others)]
    if not set(named) <= known | _OF_OTHERS:
        msg = (
            f"device={device!r}: OpenVINO has no such device on this machine, only {available}. Give one of these, or "
            "install the driver of yours."
        )
        raise ValueError(msg)


def compiled(model: openvino.Model, device: str, config: Mapping[str, Any]) -> SharedModel:
    """Return a model compiled for a device, to answer one picture at a time.

    Raises:
        ValueError: If OpenVINO takes neither the configuration nor the model there.
    """
    try:
        done = core().compile_model(of_one_picture(model), device, dict(config))
    except (RuntimeError, TypeError) as error:
        msg = (
            f"OpenVINO cannot use device={device!r} with config={dict(config)} ({reason_of(error)}). Mend config=, or "
            "leave it out."
        )
        raise ValueError(msg) from error
    return SharedModel(done, one_by_one=True)


def of_one_picture(model: openvino.Model) -> openvino.Model:
    """Return a copy of a model that takes one picture at a time, of any size as before.

    Where OpenVINO knows all shapes, it puts elementwise operations together, which takes a quarter of the time off
    (2026.4). Behind the resize only the number of pictures is open.
    """
    model = model.clone()
    shapes = {}
    for port in model.inputs:
        shape = port.get_partial_shape()
        shape[0] = 1
        shapes[port] = shape
    model.reshape(shapes)
    return model


@dataclass(frozen=True)
class InferenceOutputs:
    """What a model says of several pictures.

    Attributes:
        arrays: The outputs, in their order.
        places: Place of each output by its names.
    """

    arrays: Sequence[np.ndarray]
    places: Mapping[str, int]

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[self.places[name]]

    def to_tuple(self) -> tuple[np.ndarray, ...]:
        """Return the outputs, as OpenVINO's own answers do."""
        return tuple(self.arrays)


class SharedModel:
    """A compiled model for any number of threads: each call has an infer request of its own while it runs.

    The requests are made when they are first needed. Where all are taken, a call waits: more requests would need more
    memory, and the device would have no more to give.

    Args:
        compiled: `openvino.CompiledModel`.
        requests: Calls at once at most; None for one more than the device computes at once, so that it never waits.
        one_by_one: Whether the model takes one picture at a time, see `of_one_picture`.
    """

    def __init__(
        self, compiled: openvino.CompiledModel, requests: int | None = None, *, one_by_one: bool = False
    ) -> None:
        if requests is None:
            requests = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")) + 1
        self._compiled, self.requests, self._one_by_one = compiled, requests, one_by_one
        self._free: LifoQueue[Any] = LifoQueue()
        for _ in range(requests):
            self._free.put(None)  # to be made

    def __call__(self, images: np.ndarray | list[np.ndarray]) -> Any:
        """Return the outputs for images ``[B, C, H, W]``, or a list of all inputs, by name, copied from the request."""
        inputs = images if isinstance(images, list) else [images]
        if not self._one_by_one or len(inputs[0]) == 1:
            return self._answer(images)
        number = len(inputs[0])
        answers = [self._answer([part[i : i + 1] for part in inputs]).to_tuple() for i in range(number)]
        names = [port.get_names() for port in self._compiled.outputs]
        places = {name: place for place, some in enumerate(names) for name in some}
        return InferenceOutputs([np.concatenate(parts) for parts in zip(*answers, strict=True)], places)

    def _answer(self, images: np.ndarray | list[np.ndarray]) -> Any:
        """Return the outputs of one infer request."""
        request, outputs = self._free.get(), None
        try:
            request = self._compiled.create_infer_request() if request is None else request
            outputs = request.infer(images, share_inputs=True, share_outputs=False)
        finally:
            self._free.put(None if outputs is None else request)  # a request that failed is not used again
        return outputs
