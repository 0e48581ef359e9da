# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Abstention of an exported retrieval model: its uncertainty from the tensors of the graph; it needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from anomalib_aoissl.bank.patches import patches_to_image

from .graph.joint import JOINT
from .graph.nodes import named_tensors

if TYPE_CHECKING:
    import openvino

ArrayT = TypeVar("ArrayT")

VOTES = "class_votes"
"""Name in a graph of the bank's votes ``[Q, C, L]``, Q = batch * patches."""

DECIDING = (JOINT, "class_probabilities", VOTES)
"""Names in a graph of class probabilities ``[B, C, H, W]``, then the votes; the first that it has decides."""

_BEFORE = {"smooth_shares", "mean_shares"}
"""Names in graphs of version 0.1.0, whose thresholds belong to votes that were averaged over pixels or grids."""

NOVELTY_POWER = 4
"""Power of novelty in the uncertainty: all of a picture is a little novel, which must not count."""

WINNING_PROBABILITY = "winning_probability"
"""Name of the output that `add_winning_probability` adds."""


@dataclass(frozen=True)
class AbstentionFormat:
    """What an exported model says of its abstention.

    Attributes:
        threshold: Uncertainty above which it abstains; None where it never does.
        grid_size: (rows, columns) of patches.
        patch_size: (height, width) of a patch, px.
        power: Of novelty in the uncertainty that the threshold was set for.
    """

    threshold: float | None
    grid_size: tuple[int, int]
    patch_size: tuple[int, int]
    power: int = NOVELTY_POWER

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> AbstentionFormat:
        """Return the format from the plain data of `to_dict`; that of 0.2.0 has no power."""
        sizes = tuple(content["grid_size"]), tuple(content["patch_size"])
        return cls(content["threshold"], *sizes, content.get("power", 1))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for an exported model."""
        sizes = {"grid_size": list(self.grid_size), "patch_size": list(self.patch_size)}
        return {"threshold": self.threshold, **sizes, "power": self.power}

    def picture(self, patches: np.ndarray) -> np.ndarray:
        """Return ``[B, H, W]`` of values ``[Q, L]`` of the pixels of patches."""
        (rows, columns), (height, width) = self.grid_size, self.patch_size
        every = patches.reshape(-1, rows * columns, height * width)
        return patches_to_image(every, self.grid_size, self.patch_size)

    def uncertainty(self, probability: np.ndarray, novelty: np.ndarray) -> np.ndarray:
        """Return the uncertainty ``[B, H, W]`` float32, see `uncertainty_of`; the same as the trained model's.

        Args:
            probability: Of each pixel's class, ``[B, H, W]``, or ``[Q, L]`` where patches vote.
            novelty: ``[B, H, W]``, 1 - similarity to the nearest labelled patch.
        """
        probability = self.picture(probability) if probability.ndim == 2 else probability
        return uncertainty_of(probability, novelty, self.power)


def uncertainty_of(probability: ArrayT, novelty: ArrayT, power: int = NOVELTY_POWER) -> ArrayT:
    """Return 1 - probability * (1 - novelty ** power), in [0, 1]: large where the class is unlikely or the place novel.

    Args:
        probability: Of each pixel's class, in [0, 1]; an array or a tensor, as the novelty is.
        novelty: 1 - cosine similarity to the nearest labelled patch, of the same shape; above 1 it counts as 1.
        power: See `NOVELTY_POWER`; 1 for thresholds of version 0.2.0.
    """
    result: ArrayT = 1.0 - probability * (1.0 - novelty.clip(0.0, 1.0) ** power)  # type: ignore[attr-defined]
    return result


def add_winning_probability(model: openvino.Model) -> bool:
    """Add the largest class probability as an output to an OpenVINO model, and tell whether its votes were found.

    The exported graph keeps them as a named tensor inside, since anomalib's inferencer takes known outputs only.
    """
    import openvino.opset13 as ops

    names = named_tensors(model)
    found = [name for name in DECIDING if name in names]
    if not found or names.keys() & _BEFORE:
        return False
    weights, axis = names[found[0]], ops.constant(np.array([1], dtype=np.int64))
    total = ops.maximum(ops.reduce_sum(weights, axis, keep_dims=False), ops.constant(np.float32(1e-9)))
    probability = ops.divide(ops.reduce_max(weights, axis, keep_dims=False), total)
    probability.output(0).set_names({WINNING_PROBABILITY})
    model.add_outputs([probability.output(0)])
    return True


def checked_threshold(threshold: float | None) -> float | None:
    """Return an uncertainty above which a model abstains; None for never.

    Raises:
        ValueError: If it is no number in [0, 1]: the model would abstain everywhere or nowhere, without a word.
    """
    if threshold is None:
        return None
    number = isinstance(threshold, int | float | np.number) and not isinstance(threshold, bool)
    if not number or not 0 <= threshold <= 1:
        msg = f"threshold={threshold!r} must be a number in [0, 1], an uncertainty; or None, to abstain nowhere."
        raise ValueError(msg)
    return float(threshold)
