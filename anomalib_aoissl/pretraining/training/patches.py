# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The pixels of patches: cut from images, put together again, whitened."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


def cut_patches(images: torch.Tensor, patch_size: tuple[int, int]) -> torch.Tensor:
    """Return the pixels ``[B, P, S]`` of each patch of images ``[B, C, H, W]``: S = C * patch height * patch width."""
    return functional.unfold(images, patch_size, stride=patch_size).transpose(1, 2)


def paste_patches(patches: torch.Tensor, size: tuple[int, int], patch_size: tuple[int, int]) -> torch.Tensor:
    """Return the images ``[B, C, H, W]`` of patches ``[B, P, S]``; the inverse of `cut_patches`."""
    return functional.fold(patches.transpose(1, 2), size, patch_size, stride=patch_size)


class PatchWhitening(nn.Module):
    """Pixels of a patch to decorrelated numbers of equal weight, noise excepted [0].

    The first principal components of a patch are its brightness and slow shading; they hold nearly all of the variance,
    while a wire of 3 px is in the later ones. Whitening gives each component the same weight, and the floor keeps those
    out that are weaker than the noise: component / sqrt(variance + noise_floor ** 2).

    Args:
        size: S, values of a patch.
        noise_floor: Standard deviation of a pixel's noise, unit of the normalised images.

    [0]: Bell and Sejnowski, The independent components of natural scenes are edge filters, 1997; whitening by PCA.
    """

    mean: torch.Tensor
    axes: torch.Tensor
    scale: torch.Tensor

    def __init__(self, size: int, noise_floor: float) -> None:
        super().__init__()
        self.noise_floor = noise_floor
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("axes", torch.eye(size))
        self.register_buffer("scale", torch.ones(size))

    @torch.no_grad()
    def fit(self, patches: torch.Tensor) -> None:
        """Take mean and principal axes of patches ``[N, S]``."""
        patches = patches.double().cpu()
        variances, axes = torch.linalg.eigh(torch.cov(patches.T))
        self.mean.copy_(patches.mean(dim=0))
        self.axes.copy_(axes)
        self.scale.copy_((variances.clamp_min(0) + self.noise_floor**2).sqrt().clamp_min(1e-6))

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Return the whitened patches ``[..., S]``."""
        with torch.autocast(patches.device.type, enabled=False):  # weak components are small differences of pixels
            return (patches.float() - self.mean) @ self.axes / self.scale

    def inverse(self, whitened: torch.Tensor) -> torch.Tensor:
        """Return the pixels ``[..., S]`` of whitened patches."""
        return (whitened.float() * self.scale) @ self.axes.T + self.mean
