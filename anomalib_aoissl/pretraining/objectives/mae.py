# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Masked autoencoder: the encoder sees a quarter of the patches, a light decoder fills in the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from timm.models import VisionTransformer
from torch.nn import functional

from anomalib_aoissl.plugin.arguments import ArgumentError, Rule
from anomalib_aoissl.plugin.removed_arguments import had_arguments
from anomalib_aoissl.pretraining.argument_rules import MAE_GONE, MAE_MOVED, MAE_RULES, Target
from anomalib_aoissl.pretraining.callback import PretrainingCallback
from anomalib_aoissl.pretraining.options import DecoderOptions, MAECropOptions, size_pair
from anomalib_aoissl.pretraining.training.augmentation import CropKind
from anomalib_aoissl.pretraining.training.objective import Objective, Progress, Views
from anomalib_aoissl.pretraining.training.patches import PatchWhitening, cut_patches, paste_patches
from anomalib_aoissl.pretraining.training.tokens import (
    check_transformer,
    encode,
    gather_tokens,
    grid_of,
    random_offsets,
)

from .heads import PixelDecoder
from .masking import random_partition

_NOISE_FLOOR = 0.1  # noise of a pixel, unit of the normalised images; what is weaker is not rewarded


class MaskedAutoencoder(Objective):
    """Masked autoencoder [0] around a timm vision transformer.

    For images ``x [B, C, H, W]`` of P patches with S = C * patch pixels each: the transformer runs on the V visible
    patches and its prefix tokens alone, ``z = encode(x)[visible]  [B, T + V, D]``; the decoder predicts
    ``y [B, M, S]`` of the M masked ones; the loss is ``mean over b, m, s of (y - target(x)[masked]) ** 2``.

    Args:
        vit: The transformer; only what is missing in it (decoder, mask token) is made here.
        crops: Size and zoom of the crops.
        decoder: Size of the decoder.
        mask_ratio: Share of the patches that is masked.
        target: What is predicted of a patch: its pixels, its pixels normalised patch by patch (as in the paper), or
            whitened over all patches (see `PatchWhitening`).

    [0]: He et al., Masked Autoencoders Are Scalable Vision Learners, 2021, arXiv 2111.06377. Differs in: the mask
    tokens stand before the visible ones; positions of the encoder are its own; the noise floor; whitened targets.
    """

    name: ClassVar[str] = "mae"
    advice: ClassVar[str] = (
        "lower optimizer.learning_rate (a third), lengthen optimizer.warmup, or use larger or more varied crops"
    )

    def __init__(
        self,
        vit: VisionTransformer,
        crops: MAECropOptions,
        decoder: DecoderOptions,
        *,
        mask_ratio: float,
        target: Target,
    ) -> None:
        super().__init__(check_transformer(vit))
        self.patch_size: tuple[int, int] = tuple(vit.patch_embed.patch_size)
        channels = vit.patch_embed.proj.weight.shape[1]
        values = channels * self.patch_size[0] * self.patch_size[1]
        self.crops, self.mask_ratio, self.target = crops, mask_ratio, target
        self.decoder = PixelDecoder(
            vit.embed_dim, dims=decoder.dims, depth=decoder.depth, heads=decoder.heads, outputs=values
        )
        self.whitening = PatchWhitening(values, _NOISE_FLOOR)

    def crop_kinds(self) -> dict[str, CropKind]:
        """Return one crop of a sample."""
        return {"crop": CropKind(1, size_pair(self.crops.size), self.crops.zoom)}

    def prepare(self, images: torch.Tensor) -> None:
        """Learn the whitening of patches from normalised pictures ``[N, C, H, W]``."""
        if self.target == "whitened":
            self.whitening.fit(cut_patches(images, self.patch_size).flatten(0, 1))

    def targets(self, images: torch.Tensor) -> torch.Tensor:
        """Return what is to be predicted of each patch, ``[B, P, S]``, in float32."""
        patches = cut_patches(images, self.patch_size).float()
        if self.target == "pixels":
            return patches
        return normalise_patches(patches, _NOISE_FLOOR) if self.target == "normalized" else self.whitening(patches)

    def predict(self, images: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the predictions ``[B, M, S]`` and the indices ``[B, M]`` of the masked patches they belong to."""
        grid = grid_of(self.vit, images)
        visible, masked = random_partition(len(images), grid[0] * grid[1], self.mask_ratio, generator)
        offsets = random_offsets(self.vit, grid, len(images), generator)
        tokens = encode(self.vit, images, keep=visible, offsets=offsets)  # [B, T + V, D]
        return self.decoder(tokens, visible, masked, grid), masked

    def forward(self, views: Views, generator: torch.Generator, progress: Progress) -> dict[str, torch.Tensor]:
        """Return the loss of crops ``[B, 1, C, h, w]``."""
        del progress
        images = views["crop"].flatten(0, 1)
        predicted, masked = self.predict(images, generator)
        return {"loss": masked_pixel_loss(predicted, gather_tokens(self.targets(images), masked))}

    @torch.no_grad()
    def pictures(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return input, masked input and reconstruction side by side, ``[B, C, H, 3 W]``, for normalised images."""
        predicted, masked = self.predict(images, generator)
        patches = cut_patches(images, self.patch_size).float()
        index = masked[..., None].expand(-1, -1, patches.shape[-1])
        size = (images.shape[-2], images.shape[-1])
        holes = patches.scatter(1, index, 0.0)
        pixels = self._pixels(predicted.float(), gather_tokens(patches, masked))
        filled = patches.scatter(1, index, pixels)
        parts = [images.float(), *(paste_patches(p, size, self.patch_size) for p in (holes, filled))]
        return torch.cat(parts, dim=-1)

    def _pixels(self, predicted: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """Return predictions ``[B, M, S]`` as pixels; normalised ones take mean and contrast from the truth."""
        if self.target == "pixels":
            return predicted
        if self.target == "whitened":
            return self.whitening.inverse(predicted)
        variance = truth.var(dim=-1, keepdim=True, unbiased=False)
        return predicted * (variance + _NOISE_FLOOR**2).sqrt() + truth.mean(dim=-1, keepdim=True)


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


@had_arguments(*MAE_GONE, moved=MAE_MOVED)
@dataclass(eq=False, repr=False)
class MAEPretraining(PretrainingCallback):
    """Pretrains the model's encoder as a masked autoencoder before the model's own training begins.

    Args:
        crops: How crops are cut from the pictures, see `MAECropOptions`.
        mask_ratio: Share of the patches that is masked, in [0, 1]; 0.75 in the paper.
        target: What is predicted: "pixels", "normalized" (each patch by its own mean and deviation, as in the paper),
            or "whitened" (decorrelated over all patches; fine structure counts as much as shading).
        decoder: The decoder, see `DecoderOptions`.

    What all objectives share: see `PretrainingCallback`.
    """

    RULES: ClassVar[Mapping[str, Rule]] = MAE_RULES
    objective_name: ClassVar[str] = "mae"
    scratch_rate: ClassVar[float] = 1.5e-3

    crops: MAECropOptions = MAECropOptions()
    mask_ratio: float = 0.75
    target: Target = "whitened"
    decoder: DecoderOptions = DecoderOptions()

    def __post_init__(self) -> None:
        """Validate the arguments."""
        super().__post_init__()
        dims, heads = self.decoder.dims, self.decoder.heads
        if dims % 4 or dims % heads:
            msg = f"decoder.dims={dims} must be a multiple of 4 and of decoder.heads={heads}."
            raise ArgumentError(msg)

    def build_objective(self, vit: VisionTransformer) -> MaskedAutoencoder:
        """Return the masked autoencoder around the transformer."""
        return MaskedAutoencoder(vit, self.crops, self.decoder, mask_ratio=self.mask_ratio, target=self.target)
