# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The gate behind an export: what was exported is compared with what was trained, picture by picture; needs no torch.

The first of several runners is the reference.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from anomalib_aoissl.data.indices import IGNORE_INDEX

from .files.model_file import reason_of
from .runners import OUTPUTS, NamedRunner, Runner

_VERSION = 1
"""Of a report's plain data."""

_NEVER_COMPRESSED = {"onnx", "torch"}
"""Runners of what is not compressed: compression is the IR's alone."""

_TIMED = 3
"""Calls whose median is the latency."""


class GateError(ValueError):
    """An export that does not answer as the trained model does; the message says how and what to do."""


@dataclass(frozen=True)
class Limits:
    """What a comparison may show at worst.

    Attributes:
        equal_pixels: Share of pixels, in [0, 1], that must have the reference's class.
        novelty: Largest difference of novelty; None for any.
        iou_drop: Largest loss of mean IoU against the reference; then ``equal_pixels`` counts without masks only.
    """

    equal_pixels: float
    novelty: float | None = None
    iou_drop: float | None = None


LIMITS = {
    "": Limits(0.999, 1e-4),
    "fp16": Limits(0.999, 5e-3),
    "int8": Limits(0.98, 0.2),
    "int8_ptq": Limits(0.97, None, 0.01),
    "int8_acq": Limits(0.97, None, 0.01),
}
"""Limits of each compression, by its name in small letters; empty for none."""


@dataclass(frozen=True)
class RunnerResult:
    """How one runner answered.

    Attributes:
        equal_pixels: Share of all pixels that have the reference's class, in [0, 1].
        worst_picture: That of the picture with the least.
        novelty_difference: Largest difference of novelty, and of an image's score.
        latency_ms: Median of one picture, ms.
        mean_iou: Pixels pooled over the pictures, in [0, 1]; None without masks.
        faults: What is wrong with it, in words; empty where it passes.
        runtime: What computed it, name and version; empty where its runner does not say.
    """

    equal_pixels: float = 0.0
    worst_picture: float = 0.0
    novelty_difference: float = float("inf")
    latency_ms: float = float("nan")
    mean_iou: float | None = None
    faults: tuple[str, ...] = ()
    runtime: str = ""


@dataclass(frozen=True)
class GateReport:
    """The result of a gate.

    Attributes:
        reference: Name of the runner that the others are compared with.
        pictures: How many were compared.
        source: Where they came from.
        compression: Name of the compression; empty for none.
        limits: What was asked.
        runs: What each runner showed, by name.
    """

    reference: str
    pictures: int
    source: str
    compression: str
    limits: Limits
    runs: Mapping[str, RunnerResult]

    @property
    def passed(self) -> bool:
        """Whether there is nothing to object to."""
        return not any(run.faults for run in self.runs.values())

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for a file and for a model's runtime information."""
        return {"version": _VERSION, "passed": self.passed, **asdict(self)}

    def summary(self) -> str:
        """Return one line: runtime, equal pixels, novelty and latency of each runner."""
        others = [f"{_named(name, run)} {_said(run)}" for name, run in self.runs.items() if name != self.reference]
        return f"{'; '.join(others)}; {self.reference} {self.runs[self.reference].latency_ms:.0f} ms"

    def check(self) -> None:
        """Raise where the gate did not pass.

        Raises:
            GateError: Naming each runner and what is wrong with it.
        """
        if self.passed:
            return
        faults = "; ".join(f"{name}: {', '.join(run.faults)}" for name, run in self.runs.items() if run.faults)
        advice = "Export without --compression_type, or with" if self.compression else "Report this fault, or give"
        msg = (
            f"The exported model and the trained model give other answers on {self.pictures} pictures of "
            f"{self.source}. {faults}. Nothing was written. {advice} --gate off to write it without a comparison."
        )
        raise GateError(msg)


@dataclass(frozen=True)
class Sample:
    """Pictures to compare on.

    Attributes:
        images: Each ``[C, H, W]`` float32 in [0, 1], of any size.
        source: Where they came from, in words.
        masks: Class-index masks ``[H, W]`` of the images; empty where there are none.
    """

    images: Sequence[np.ndarray]
    source: str
    masks: Sequence[np.ndarray] = field(default=())


def judge(
    runners: Mapping[str, Runner],
    sample: Sample,
    limits: Limits,
    compression: str = "",
    exact: Limits = LIMITS[""],
) -> GateReport:
    """Return how the runners compare with the first of them, which is the reference.

    Each picture is asked alone, and the first one once more in a batch with its mirror image. ``exact`` are the limits
    of what is not compressed.
    """
    (reference, first), *others = runners.items()
    batches = _batches(sample.images)
    expected = [_picked(first(batch)) for batch in batches]
    truth = _mean_iou(expected, sample.masks)
    runs = {reference: RunnerResult(1.0, 1.0, 0.0, _latency(first, batches[0]), truth, runtime=_runtime(first))}
    for name, runner in others:
        runs[name] = replace(_compared(runner, batches, expected, sample.masks), runtime=_runtime(runner))
        if not runs[name].faults:
            faults = _faults(runs[name], exact if name in _NEVER_COMPRESSED else limits, truth)
            runs[name] = replace(runs[name], faults=faults)
    return GateReport(reference, len(sample.images), sample.source, compression, limits, runs)


# --- measures -------------------------------------------------------------------------------------------------------


def class_pairs(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return how often each class of a mask ``[H, W]`` met each predicted class, ``[256, 256]``; ignored pixels do not.

    Args:
        truth: Class-index mask.
        predicted: Class indices ``[h, w]``, brought to the size of the mask by nearest neighbour.
    """
    rows, columns = (np.arange(size) * old // size for size, old in zip(truth.shape, predicted.shape, strict=True))
    predicted = predicted[rows[:, np.newaxis], columns]
    known, size = truth != IGNORE_INDEX, IGNORE_INDEX + 1
    pairs = truth[known].astype(np.int64) * size + predicted[known]
    return np.bincount(pairs, minlength=size * size).reshape(size, size)


def mean_iou(pairs: np.ndarray) -> float:
    """Return the mean IoU of `class_pairs`, over the classes that occur."""
    hits, unions = pairs.diagonal(), pairs.sum(axis=0) + pairs.sum(axis=1) - pairs.diagonal()
    return float((hits[unions > 0] / unions[unions > 0]).mean())


def _mean_iou(answers: Sequence[Mapping[str, np.ndarray]], masks: Sequence[np.ndarray]) -> float | None:
    """Return the mean IoU of the answers to single pictures; None without masks."""
    if not masks:
        return None
    pairs = [class_pairs(mask, answer["pred_mask"][0, 0]) for answer, mask in zip(answers, masks, strict=False)]
    return mean_iou(sum(pairs[1:], pairs[0]))


def _batches(images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return the pictures one by one, and at last the first one with its mirror image."""
    single = [np.ascontiguousarray(image, np.float32)[np.newaxis] for image in images]
    return [*single, np.concatenate([single[0], single[0][..., ::-1]])]


def _picked(outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return copies of the outputs that are compared."""
    return {name: np.array(outputs[name]) for name in OUTPUTS}


def _compared(
    runner: Runner,
    batches: Sequence[np.ndarray],
    expected: Sequence[Mapping[str, np.ndarray]],
    masks: Sequence[np.ndarray],
) -> RunnerResult:
    """Return how a runner's answers compare with those that are expected; faults only where it cannot be compared."""
    answers, equal, novelty = [], [], []
    for batch, right in zip(batches, expected, strict=True):
        try:
            answer = _picked(runner(batch))
        except Exception as error:  # noqa: BLE001 - a runtime may raise anything
            return RunnerResult(faults=(f"cannot run images {list(batch.shape)} ({reason_of(error)})",))
        odd = next((name for name in OUTPUTS if answer[name].shape != right[name].shape), None)
        if odd is not None:
            shapes = f"{list(answer[odd].shape)}, not {list(right[odd].shape)}"
            return RunnerResult(faults=(f"{odd} of images {list(batch.shape)} is {shapes}",))
        answers.append(answer)
        equal.append(float((answer["pred_mask"] == right["pred_mask"]).mean()))
        novelty += [_difference(answer[name], right[name]) for name in OUTPUTS[1:]]
    return RunnerResult(
        equal_pixels=statistics.fmean(equal),
        worst_picture=min(equal),
        novelty_difference=max(novelty),
        latency_ms=_latency(runner, batches[0]),
        mean_iou=_mean_iou(answers, masks),
    )


def _difference(answer: np.ndarray, right: np.ndarray) -> float:
    """Return the largest difference of two arrays; infinity where one is not finite."""
    difference = np.abs(answer.astype(np.float64) - right)
    return float(difference.max()) if np.isfinite(difference).all() else float("inf")


def _latency(runner: Runner, batch: np.ndarray) -> float:
    """Return the median time of a call, ms."""
    times = []
    for _ in range(_TIMED):
        started = time.perf_counter()
        runner(batch)
        times.append(1e3 * (time.perf_counter() - started))
    return statistics.median(times)


def _faults(run: RunnerResult, limits: Limits, truth: float | None) -> tuple[str, ...]:
    """Return in words what a comparison has against a runner."""
    faults = []
    if limits.iou_drop is not None and truth is not None and run.mean_iou is not None:
        if truth - run.mean_iou > limits.iou_drop:
            faults.append(
                f"mean IoU {run.mean_iou:.3f}, the trained model has {truth:.3f}; {limits.iou_drop} may be lost"
            )
    elif run.equal_pixels < limits.equal_pixels:
        faults.append(f"{run.equal_pixels:.2%} of the pixels are equal, {limits.equal_pixels:.2%} are asked")
    if limits.novelty is not None and not run.novelty_difference <= limits.novelty:
        faults.append(f"novelty differs by up to {run.novelty_difference:.2g}, {limits.novelty:.2g} is allowed")
    return tuple(faults)


def _runtime(runner: Runner) -> str:
    """Return the runtime of a runner; empty where it does not say."""
    return runner.runtime if isinstance(runner, NamedRunner) else ""


def _named(name: str, run: RunnerResult) -> str:
    """Return a runner's name, with its runtime where that is known."""
    return f"{name} ({run.runtime})" if run.runtime else name


def _said(run: RunnerResult) -> str:
    """Return what a comparison showed, in a few words."""
    iou = "" if run.mean_iou is None else f", mean IoU {run.mean_iou:.3f}"
    return (
        f"{run.equal_pixels:.2%} of the pixels equal{iou}, novelty within {run.novelty_difference:.1g}, "
        f"{run.latency_ms:.0f} ms"
    )
