# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Compiled OpenVINO models that several threads call at once, and what they are compiled with; needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from queue import Empty, LifoQueue
from typing import Any

_DEFAULTS = {"INFERENCE_PRECISION_HINT": "f32"}

_DEFAULTS_OF_CPU = {"CPU_RUNTIME_CACHE_CAPACITY": 0}
"""OpenVINO's processor plugin keeps what it prepared for each image size, 5,000 at most: some MB for each new size."""


def with_defaults(device: str, config: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the configuration of a device: the defaults, and over them what a user gives."""
    of_device = _DEFAULTS_OF_CPU if device.upper().partition(".")[0] == "CPU" else {}
    return {**_DEFAULTS, **of_device, **(config or {})}


class SharedModel:
    """A compiled model for any number of threads: each call has an infer request of its own while it runs.

    There are as many requests as calls at once; making one takes as long as an image.

    Args:
        compiled: `openvino.CompiledModel`.
    """

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self._free: LifoQueue[Any] = LifoQueue()

    def __call__(self, images: Any) -> Any:
        """Return the outputs for images ``[B, C, H, W]``, or a list of all inputs, by name, copied from the request."""
        try:
            request = self._free.get_nowait()
        except Empty:
            request = self._compiled.create_infer_request()
        outputs = request.infer(images, share_inputs=True, share_outputs=False)
        self._free.put(request)  # a request that failed is not used again
        return outputs
