# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Stable names for tensors inside an exported graph, so that the graph can be found its way in and edited later."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

_marked: ContextVar[dict[str, torch.Tensor | None] | None] = ContextVar("_marked", default=None)


def mark(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor; while `marking` traces a graph it is known there by this name.

    A name that is used twice in one pass would be ambiguous, and is given to neither.
    """
    marks = _marked.get()
    if marks is not None:
        marks[name] = None if name in marks else tensor
    return tensor


def is_marking() -> bool:
    """Tell whether a graph that is to be edited later is being traced."""
    return _marked.get() is not None


@contextmanager
def marking() -> Iterator[dict[str, torch.Tensor | None]]:
    """Give the dictionary that `mark` fills while the block runs; None stands for an ambiguous name."""
    marks: dict[str, torch.Tensor | None] = {}
    token = _marked.set(marks)
    try:
        yield marks
    finally:
        _marked.reset(token)
