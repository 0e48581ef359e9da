# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Options of the pretraining callbacks: crops, optimiser, probe, loading, and the parts of each objective."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from anomalib_aoissl.plugin.arguments import SIZE, Rule, null_or, number, span, whole
from anomalib_aoissl.plugin.options import Options

_COUNT, _POSITIVE, _NOT_NEGATIVE, _SHARE = whole("(0, inf)"), number("(0, inf)"), number("[0, inf)"), number("[0, 1]")


def size_pair(size: int | tuple[int, int]) -> tuple[int, int]:
    """Return (height, width) of a side or a pair, px."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


# --- all objectives --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CropOptions(Options):
    """How crops are cut from the pictures.

    Args:
        per_image: Samples that a picture gives in an epoch.
    """

    RULES: ClassVar[Mapping[str, Rule]] = {"per_image": _COUNT}

    per_image: int = 1


@dataclass(frozen=True)
class OptimizerOptions(Options):
    """The learning rate and its schedule.

    Args:
        learning_rate: Peak of the learning rate; null: 1.5e-3 (MAE) or 5e-4 (DINO, iBOT) from random weights, and 1e-4
            from trained ones, which a larger one takes apart.
        warmup: Share of the steps in which the rate grows from 0.
    """

    RULES: ClassVar[Mapping[str, Rule]] = {"learning_rate": null_or(_POSITIVE), "warmup": _SHARE}

    learning_rate: float | None = None
    warmup: float = 0.1


@dataclass(frozen=True)
class ProbeOptions(Options):
    """When and on what the encoder is measured.

    Args:
        every: Epochs between two measures of the encoder; also between two checkpoints.
        images: Labelled images of the probe on either side, bank and queries; 0 for no probe.
    """

    RULES: ClassVar[Mapping[str, Rule]] = {"every": _COUNT, "images": whole("[0, inf)")}

    every: int = 10
    images: int = 5


@dataclass(frozen=True)
class LoadingOptions(Options):
    """How pictures are read; the result does not depend on it.

    Args:
        num_workers: Processes that cut crops; 0 cuts them in the training process, which is quick from memory.
        memory_mb: Memory for decoded pictures, MB, of each process that cuts crops.
    """

    RULES: ClassVar[Mapping[str, Rule]] = {"num_workers": whole("[0, inf)"), "memory_mb": _NOT_NEGATIVE}

    num_workers: int = 0
    memory_mb: float = 2048


# --- MAE -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MAECropOptions(CropOptions):
    """How crops are cut from the pictures.

    Args:
        size: Side, or (height, width), of the crops, px; multiples of the patch size.
        zoom: Range of random zoom of the crops; [1, 1] resamples nothing.
    """

    RULES: ClassVar[Mapping[str, Rule]] = {**CropOptions.RULES, "size": SIZE, "zoom": span("(0, inf)")}

    size: int | tuple[int, int] = 96
    zoom: tuple[float, float] = (1.0, 1.0)


@dataclass(frozen=True)
class DecoderOptions(Options):
    """The decoder that fills in masked patches, and is thrown away.

    Args:
        dims: Width; a multiple of 4 and of ``heads``. 512 in the paper, for encoders of 1024.
        depth: Blocks; 8 in the paper.
        heads: Attention heads.
    """

    RULES: ClassVar[Mapping[str, Rule]] = {"dims": _COUNT, "depth": whole("[0, inf)"), "heads": _COUNT}

    dims: int = 128
    depth: int = 1
    heads: int = 4


# --- DINO and iBOT ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DINOCropOptions(CropOptions):
    """How crops are cut from the pictures: 2 global ones of a sample, and local ones.

    Args:
        global_size: Side, or (height, width), of the 2 global crops, px; 224 in the paper.
        local_size: Side, or (height, width), of the local crops, px; 96 in the paper.
        local_count: Local crops of a sample; 8 or 10 in the paper.
        zoom: Range of the zoom of all crops; below 1 shows more of the picture.
    """

    RULES: ClassVar[Mapping[str, Rule]] = {
        **CropOptions.RULES,
        "global_size": SIZE,
        "local_size": SIZE,
        "local_count": whole("[0, inf)"),
        "zoom": span("(0, inf)"),
    }

    global_size: int | tuple[int, int] = 96
    local_size: int | tuple[int, int] = 48
    local_count: int = 4
    zoom: tuple[float, float] = (0.7, 1.4)


@dataclass(frozen=True)
class HeadOptions(Options):
    """The head that says how near a token is to each of some prototypes; thrown away after training.

    Args:
        outputs: Prototypes; 65536 in the paper, for 1.3 million images.
        hidden: Width; 2048 in the paper.
        bottleneck: Dims of the prototypes; 256 in the paper.
        frozen: Share of the steps in which the prototypes do not move; 1 epoch of 100 in the paper.
    """

    RULES: ClassVar[Mapping[str, Rule]] = {"outputs": _COUNT, "hidden": _COUNT, "bottleneck": _COUNT, "frozen": _SHARE}

    outputs: int = 1024
    hidden: int = 512
    bottleneck: int = 128
    frozen: float = 0.01


@dataclass(frozen=True)
class TeacherOptions(Options):
    """The teacher, a moving average of the student.

    Args:
        temperature: After the warm-up, which takes 0.3 of the steps, from 0.04; 0.07 in the paper.
        momentum: At the start; it grows to 1 as a cosine. 0.996 in the paper, 0.98 for runs of a few hundred steps.
    """

    RULES: ClassVar[Mapping[str, Rule]] = {"temperature": _POSITIVE, "momentum": _SHARE}

    temperature: float = 0.07
    momentum: float = 0.996
