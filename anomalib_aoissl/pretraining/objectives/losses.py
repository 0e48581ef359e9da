# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Pixel targets and losses of the objectives; pure functions of tensors."""

from __future__ import annotations

import torch
from torch.nn import functional

__all__ = ["masked_pixel_loss", "normalise_patches"]


def normalise_patches(patches: torch.Tensor, noise_floor: float) -> torch.Tensor:
    """Return patches ``[..., S]`` with the mean taken off and divided by sqrt(variance + noise_floor ** 2).

    The paper [0] divides by the standard deviation alone, so that a dark area without structure becomes pure sensor
    noise at full contrast, which no model can predict. With a floor above the noise (same unit as the patches) such
    an area stays near zero, while structure is still brought to one contrast.

    [0]: He et al., Masked Autoencoders Are Scalable Vision Learners, 2021, arXiv 2111.06377. Differs in: the floor,
    1e-3 there, is an argument.
    """
    centred = patches - patches.mean(dim=-1, keepdim=True)
    variance = centred.pow(2).mean(dim=-1, keepdim=True)
    return centred / (variance + noise_floor**2).sqrt().clamp_min(1e-6)


def masked_pixel_loss(predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the mean squared error over masked patches ``[B, M, S]``, in float32; 0 where nothing is masked."""
    if predicted.numel() == 0:
        return predicted.float().sum()
    return functional.mse_loss(predicted.float(), target.float())
