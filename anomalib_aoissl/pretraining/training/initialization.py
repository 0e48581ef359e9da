# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Statistics of pictures written into a transformer: whitened patch embeddings first, an even last norm at the end.

Retrieval compares embeddings by their angle. Brightness and slow shading hold nearly all of the variance of pixels, and
of what an encoder makes of them, so that a wire of 3 px hardly turns the angle. Both functions here change weights of
the transformer alone: what comes out is still a plain timm model.
"""

from __future__ import annotations

import torch
from timm.models import VisionTransformer
from torch import nn

from .patches import PatchWhitening, cut_patches
from .tokens import encode, sincos_positions

NOISE_FLOOR = 0.1
"""Noise of a pixel that whitening keeps out, unit of the normalised images."""

EVEN_FLOOR = 0.1
"""Share of the root mean square deviation of all dims of the embeddings, see `even_last_norm`."""

_POSITION_SCALE = 0.3  # amplitude of the positions; 1 is as large as a whitened component


@torch.no_grad()
def whiten_patch_embedding(vit: VisionTransformer, images: torch.Tensor) -> None:
    """Give an untrained transformer whitened patches as embeddings, and sine-cosine positions; in place [0].

    Dim d of the embedding becomes the d-th principal component of a patch's pixels / sqrt(variance +
    `NOISE_FLOOR` ** 2); dims beyond the number of pixel values keep their random weights.

    Args:
        vit: The transformer; its patch embedding and patch positions are replaced.
        images: Normalised pictures ``[N, C, H, W]``.

    [0]: data-dependent initialisation, Kraehenbuehl et al., 2015, arXiv 1511.06856; differs in: whitening by PCA.
    """
    patches = cut_patches(images, tuple(vit.patch_embed.patch_size)).flatten(0, 1)  # [N, S]
    whitening = PatchWhitening(patches.shape[1], NOISE_FLOOR)
    whitening.fit(patches)
    filters = (whitening.axes / whitening.scale).flip(1).T  # [S, S], strongest component first
    weight, bias = vit.patch_embed.proj.weight, vit.patch_embed.proj.bias
    count = min(len(weight), len(filters))
    weight[:count] = filters[:count].view(count, *weight.shape[1:]).to(weight)
    if bias is not None:
        bias[:count] = -(filters[:count] @ whitening.mean).to(bias)
    if vit.pos_embed is not None and vit.embed_dim % 4 == 0:
        prefix = 0 if vit.no_embed_class else vit.num_prefix_tokens
        positions = sincos_positions(tuple(vit.patch_embed.grid_size), vit.embed_dim)
        vit.pos_embed[0, prefix:] = (_POSITION_SCALE * positions).to(vit.pos_embed)


@torch.no_grad()
def even_last_norm(vit: VisionTransformer, images: torch.Tensor) -> None:
    """Set scale and shift of the last layer norm so that each dim of the patch embeddings has mean 0 and deviation 1.

    Deviations far below `EVEN_FLOOR` times the root mean square of all are not raised to 1.

    Args:
        vit: The transformer; left as it is where its last norm has no scale and shift.
        images: Normalised pictures ``[N, C, H, W]`` of the encoder's size.
    """
    norm = vit.norm
    if not isinstance(norm, nn.LayerNorm) or norm.weight is None or norm.bias is None:
        return
    training = vit.training
    vit.eval()
    norm.weight.fill_(1.0)
    norm.bias.zero_()
    tokens = torch.cat([encode(vit, image)[:, vit.num_prefix_tokens :].flatten(0, 1) for image in images.split(1)])
    mean, variance = tokens.float().mean(dim=0), tokens.float().var(dim=0)
    deviation = (variance + EVEN_FLOOR**2 * variance.mean()).sqrt().clamp_min(1e-6)
    norm.weight.copy_(1 / deviation)
    norm.bias.copy_(-mean / deviation)
    vit.train(training)
