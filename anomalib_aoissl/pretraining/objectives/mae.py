# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Masked autoencoder: the encoder sees a quarter of the patches, a light decoder fills in the others."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, get_args

import torch
from timm.models import VisionTransformer

from anomalib_aoissl.plugin.arguments import ArgumentError, validate
from anomalib_aoissl.pretraining.argument_rules import MAE_RULES
from anomalib_aoissl.pretraining.callback import PretrainingCallback
from anomalib_aoissl.pretraining.training.augmentation import CropKind
from anomalib_aoissl.pretraining.training.tokens import (
    check_transformer,
    encode,
    gather_tokens,
    grid_of,
    random_offsets,
)

from .heads import PixelDecoder
from .losses import PatchWhitening, cut_patches, masked_pixel_loss, normalise_patches, paste_patches
from .masking import random_partition
from .objective import Objective, Progress, Views

__all__ = ["MAEPretraining", "MaskedAutoencoder", "Target"]

Target = Literal["pixels", "normalized", "whitened"]


class MaskedAutoencoder(Objective):
    """Masked autoencoder [0] around a timm vision transformer.

    For images ``x [B, C, H, W]`` of P patches with S = C * patch pixels each: the transformer runs on the V visible
    patches and its prefix tokens alone, ``z = encode(x)[visible]  [B, T + V, D]``; the decoder predicts
    ``y [B, M, S]`` of the M masked ones; the loss is ``mean over b, m, s of (y - target(x)[masked]) ** 2``.

    Args:
        vit: The transformer; only what is missing in it (decoder, mask token) is made here.
        crop_size: (height, width) of the crops, px.
        mask_ratio: Share of the patches that is masked.
        target: What is predicted of a patch: its pixels, its pixels normalised patch by patch (as in the paper), or
            whitened over all patches (see `PatchWhitening`).
        noise_floor: Noise of a pixel, unit of the normalised images; what is weaker is not rewarded.
        decoder_dims: Width of the decoder.
        decoder_depth: Blocks of the decoder.
        decoder_heads: Attention heads of the decoder.
        zoom: Range of random zoom of the crops.

    [0]: He et al., Masked Autoencoders Are Scalable Vision Learners, 2021, arXiv 2111.06377. Differs in: the mask
    tokens stand before the visible ones; positions of the encoder are its own; the noise floor; whitened targets.
    """

    name: ClassVar[str] = "mae"
    advice: ClassVar[str] = (
        "lower learning_rate (a third), lengthen warmup, raise noise_floor if the pictures are mostly noise, or use "
        "larger or more varied crops"
    )

    def __init__(
        self,
        vit: VisionTransformer,
        *,
        crop_size: tuple[int, int],
        mask_ratio: float,
        target: Target,
        noise_floor: float,
        decoder_dims: int,
        decoder_depth: int,
        decoder_heads: int,
        zoom: tuple[float, float],
    ) -> None:
        super().__init__(check_transformer(vit))
        if target not in get_args(Target):
            msg = f"target={target!r} must be one of {list(get_args(Target))}."
            raise ValueError(msg)
        self.patch_size: tuple[int, int] = tuple(vit.patch_embed.patch_size)
        channels = vit.patch_embed.proj.weight.shape[1]
        values = channels * self.patch_size[0] * self.patch_size[1]
        self.crop_size, self.mask_ratio, self.zoom = crop_size, mask_ratio, zoom
        self.target, self.noise_floor = target, noise_floor
        self.decoder = PixelDecoder(
            vit.embed_dim, dims=decoder_dims, depth=decoder_depth, heads=decoder_heads, outputs=values
        )
        self.whitening = PatchWhitening(values, noise_floor)

    def crop_kinds(self) -> dict[str, CropKind]:
        """Return one crop of a sample."""
        return {"crop": CropKind(1, self.crop_size, self.zoom)}

    def prepare(self, images: torch.Tensor) -> None:
        """Learn the whitening of patches from normalised pictures ``[N, C, H, W]``."""
        if self.target == "whitened":
            self.whitening.fit(cut_patches(images, self.patch_size).flatten(0, 1))

    def targets(self, images: torch.Tensor) -> torch.Tensor:
        """Return what is to be predicted of each patch, ``[B, P, S]``, in float32."""
        patches = cut_patches(images, self.patch_size).float()
        if self.target == "pixels":
            return patches
        return normalise_patches(patches, self.noise_floor) if self.target == "normalized" else self.whitening(patches)

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
        return predicted * (variance + self.noise_floor**2).sqrt() + truth.mean(dim=-1, keepdim=True)


class MAEPretraining(PretrainingCallback):
    """Pretrains the model's encoder as a masked autoencoder before the model's own training begins.

    Args:
        crop_size: Side, or (height, width), of the crops that are trained on, px; multiples of the patch size.
        mask_ratio: Share of the patches that is masked, in [0, 1]; 0.75 in the paper.
        target: What is predicted: "pixels", "normalized" (each patch by its own mean and deviation, as in the paper),
            or "whitened" (decorrelated over all patches; fine structure counts as much as shading).
        noise_floor: Noise of a pixel in units of the normalised image; what is weaker than it is not rewarded.
        decoder_dims: Width of the decoder; 512 in the paper, for encoders of 1024.
        decoder_depth: Blocks of the decoder; 8 in the paper.
        decoder_heads: Attention heads of the decoder.
        zoom: Range of random zoom of the crops; [1, 1] resamples nothing.
        learning_rate: Peak of the learning rate; null: 1.5e-3 from random weights, 1e-4 from trained ones. The paper's
            is 1.5e-4 * batch size / 256, for 800 epochs of ImageNet.
        weight_decay: Of AdamW; 0.05 in the paper.
        betas: Of AdamW; (0.9, 0.95) in the paper.
        **common: What all objectives share; see `PretrainingCallback`.
    """

    objective_name: ClassVar[str] = "mae"
    scratch_rate: ClassVar[float] = 1.5e-3

    def __init__(
        self,
        crop_size: int | tuple[int, int] = 96,
        mask_ratio: float = 0.75,
        target: Target = "whitened",
        noise_floor: float = 0.1,
        decoder_dims: int = 128,
        decoder_depth: int = 1,
        decoder_heads: int = 4,
        zoom: tuple[float, float] = (1.0, 1.0),
        learning_rate: float | None = None,
        weight_decay: float = 0.05,
        betas: tuple[float, float] = (0.9, 0.95),
        **common: Any,
    ) -> None:
        validate(MAE_RULES, locals())
        if decoder_dims % 4 or decoder_dims % decoder_heads:
            msg = f"decoder_dims={decoder_dims} must be a multiple of 4 and of decoder_heads={decoder_heads}."
            raise ArgumentError(msg)
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay, betas=betas, **common)
        self.objective_arguments = {
            "crop_size": (crop_size, crop_size) if isinstance(crop_size, int) else tuple(crop_size),
            "mask_ratio": mask_ratio,
            "target": target,
            "noise_floor": noise_floor,
            "decoder_dims": decoder_dims,
            "decoder_depth": decoder_depth,
            "decoder_heads": decoder_heads,
            "zoom": tuple(zoom),
        }

    def build_objective(self, vit: VisionTransformer) -> MaskedAutoencoder:
        """Return the masked autoencoder around the transformer."""
        return MaskedAutoencoder(vit, **self.objective_arguments)
