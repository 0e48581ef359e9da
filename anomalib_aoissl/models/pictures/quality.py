# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What the labelled pictures are like, and the pictures of a prediction that differ from them."""

from __future__ import annotations

import torch

from anomalib_aoissl.bank.own_novelty import novelty_fault
from anomalib_aoissl.data.quality.picture_quality import LabelledQuality
from anomalib_aoissl.pixel_head.learning.sample import evenly_taken

_LOOKED_AT = 128
"""Labelled pictures that are looked at, evenly over all."""


def quality_of_training(dataset: object, size: tuple[int, int] | None) -> LabelledQuality | None:
    """Return the quality of a dataset's labelled pictures; None for a dataset that is not ours.

    Args:
        dataset: A dataset that was set up.
        size: (height, width) px that the model sees pictures at; None where it sees tiles.
    """
    samples, file_format = getattr(dataset, "samples", None), getattr(dataset, "file_format", None)
    if samples is None or file_format is None or "channel_paths" not in samples:
        return None
    labelled = samples[samples["mask_path"] != ""]
    chosen = labelled.iloc[evenly_taken(len(labelled), _LOOKED_AT)]
    if not len(chosen):
        return None
    pairs = zip(chosen["image_path"], chosen["channel_paths"], strict=True)
    return LabelledQuality.of(((name, file_format.read_files(channels)) for name, channels in pairs), size)


def faults_of(images: torch.Tensor, quality: LabelledQuality | None) -> list[str] | None:
    """Return what is wrong with each of images ``[B, C, H, W]`` in [0, 1], "" for nothing; None where none is known."""
    if quality is None:
        return None
    return [quality.fault(image) for image in images.as_subclass(torch.Tensor).detach().cpu().numpy()]


def with_novelty(faults: list[str] | None, novelty: torch.Tensor | None, known: float | None) -> list[str] | None:
    """Return what is wrong with pictures, of which some may be novel all over.

    Args:
        faults: What is wrong with them so far; None where nothing is known.
        novelty: Their novelty ``[B, ...]``.
        known: Mean novelty of labelled pictures, see `own_novelty`; None where it is not known.
    """
    if novelty is None or known is None:
        return faults
    means = novelty.flatten(1).mean(dim=1).tolist()
    novel = [novelty_fault(mean, known) for mean in means]
    return ["; ".join(filter(None, both)) for both in zip(faults or [""] * len(novel), novel, strict=True)]


def doubted(fields: dict[str, torch.Tensor | None], faults: list[str] | None) -> dict[str, torch.Tensor | None]:
    """Return the fields of a batch: a model that abstains does so everywhere in a picture that has a fault."""
    abstained = fields.get("abstained")
    if abstained is None or faults is None:
        return fields
    wrong = torch.tensor([bool(fault) for fault in faults], device=abstained.device)
    return {**fields, "abstained": abstained | wrong[:, None, None]}
