# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Options of the pretraining callbacks: crops, optimiser, probe, loading, and the parts of each objective."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from anomalib_aoissl.plugin.arguments import SIZE, Rule, null_or, number, span, whole
from anomalib_aoissl.plugin.options import Options

__all__ = [
    "CropOptions",
    "DINOCropOptions",
    "DINOOptimizerOptions",
    "DecoderOptions",
    "HeadOptions",
    "LoadingOptions",
    "MAECropOptions",
    "MaskingOptions",
    "OptimizerOptions",
    "ProbeOptions",
    "TeacherOptions",
    "size_pair",
]

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
        structure: Share of the crops that are placed by gradient energy, in [0, 1]; the others are placed uniformly.
    """

    RULES: ClassVar[Mapping[str, Rule]] = {"per_image": _COUNT, "structure": _SHARE}

    per_image: int = 1
    structure: float = 0.8


@dataclass(frozen=True)
class OptimizerOptions(Options):
    """AdamW [0] and its schedule.

    Args:
        learning_rate: Peak of the learning rate; null: 1.5e-3 (MAE) or 5e-4 (DINO, iBOT) from random weights, and 1e-4
            from trained ones, which a larger one takes apart.
        weight_decay: Of weights with two or more axes; biases, norms, tokens and positions have none.
        warmup: Share of the steps in which the rate grows from 0.

    [0]: Loshchilov and Hutter, Decoupled Weight Decay Regularization, 2017, arXiv 1711.05101.
    """

    RULES: ClassVar[Mapping[str, Rule]] = {
        "learning_rate": null_or(_POSITIVE),
        "weight_decay": _NOT_NEGATIVE,
        "warmup": _SHARE,
    }
    BETAS: ClassVar[tuple[float, float]] = (0.9, 0.95)
    """Decay of the running mean and of the running square of the gradient; those of the MAE paper."""

    learning_rate: float | None = None
    weight_decay: float = 0.05
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
class DINOOptimizerOptions(OptimizerOptions):
    """AdamW and its schedule.

    Args:
        weight_decay: At the start; 0.04 in the paper.
        final_weight_decay: At the end, reached as a cosine; 0.4 in the paper.
    """

    RULES: ClassVar[Mapping[str, Rule]] = {**OptimizerOptions.RULES, "final_weight_decay": _NOT_NEGATIVE}
    BETAS: ClassVar[tuple[float, float]] = (0.9, 0.999)

    weight_decay: float = 0.04
    final_weight_decay: float = 0.4


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
        temperature: After the warm-up; 0.07 in the paper.
        warmup_temperature: At the start; 0.04 in the paper.
        warmup: Share of the steps in which the temperature moves; 0.3 in the paper.
        momentum: At the start; it grows to 1 as a cosine. 0.996 in the paper, 0.98 for runs of a few hundred steps.
    """

    RULES: ClassVar[Mapping[str, Rule]] = {
        "temperature": _POSITIVE,
        "warmup_temperature": _POSITIVE,
        "warmup": _SHARE,
        "momentum": _SHARE,
    }

    temperature: float = 0.07
    warmup_temperature: float = 0.04
    warmup: float = 0.3
    momentum: float = 0.996


@dataclass(frozen=True)
class MaskingOptions(Options):
    """The masked patches of iBOT.

    Args:
        ratio: Range of the share of masked patches of a masked crop; [0.1, 0.5] in the paper.
        probability: Share of the global crops that are masked; 0.5 in the paper.
        weight: Weight of the loss of masked patches; 1 in the paper.
    """

    RULES: ClassVar[Mapping[str, Rule]] = {"ratio": span("[0, 1]"), "probability": _SHARE, "weight": _NOT_NEGATIVE}

    ratio: tuple[float, float] = (0.1, 0.5)
    probability: float = 0.5
    weight: float = 1.0
