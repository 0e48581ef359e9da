# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Self-supervised pretraining of the encoder as Lightning callbacks; each is imported when it is first read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from anomalib_aoissl.plugin.arguments import ArgumentError

if TYPE_CHECKING:
    from anomalib_aoissl.pretraining.objectives.dino import DINOPretraining as DINOPretraining
    from anomalib_aoissl.pretraining.objectives.ibot import IBOTPretraining as IBOTPretraining
    from anomalib_aoissl.pretraining.objectives.mae import MAEPretraining as MAEPretraining

    from .callback import PretrainingCallback

_OBJECTIVES = {
    "mae": ".objectives.mae:MAEPretraining",
    "dino": ".objectives.dino:DINOPretraining",
    "ibot": ".objectives.ibot:IBOTPretraining",
}
_EXPORTS = {place.partition(":")[2]: place.partition(":")[0] for place in _OBJECTIVES.values()}

__all__ = ["DINOPretraining", "IBOTPretraining", "MAEPretraining", "make_pretraining"]


def make_pretraining(spec: str | Mapping[str, Any] | None) -> PretrainingCallback | None:
    """Return the callback that a model's ``pretraining`` argument describes, or None for none.

    Args:
        spec: "mae", "dino" or "ibot"; or a mapping ``{"objective": "mae", ...}`` with arguments of the callback.

    Raises:
        ValueError: If the objective is unknown, or the mapping names none or holds an argument that it does not take.
    """
    if spec is None:
        return None
    arguments = {"objective": spec} if isinstance(spec, str) else dict(spec)
    arguments = _numbers(arguments)
    name = arguments.pop("objective", None)
    if name not in _OBJECTIVES:
        msg = (
            f"pretraining={spec!r} must be one of {list(_OBJECTIVES)}, or a mapping such as "
            '{"objective": "mae", "max_epochs": 100}, or null.'
        )
        raise ValueError(msg)
    module, _, attribute = _OBJECTIVES[name].partition(":")
    try:
        callback: PretrainingCallback = getattr(import_module(module, __name__), attribute)(**arguments)
    except ArgumentError as error:
        msg = f"pretraining: {error}"
        raise ArgumentError(msg) from error
    except TypeError as error:
        msg = f"pretraining={spec!r}: {error}. The arguments are those of {attribute}."
        raise ValueError(msg) from error
    return callback


def _numbers(value: object) -> Any:
    """Return 1e-4 as the number that is meant: YAML reads a number without a decimal point before its e as a string."""
    if isinstance(value, Mapping):
        return {key: _numbers(item) for key, item in value.items()}
    return float(value) if isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", value) else value


def __getattr__(name: str) -> Any:
    """Import a callback from its module.

    Raises:
        AttributeError: If there is no such name.
    """
    if name not in _EXPORTS:
        msg = f"module {__name__!r} has no attribute {name!r}; its public names are {', '.join(__all__)}"
        raise AttributeError(msg)
    return getattr(import_module(_EXPORTS[name], __name__), name)
