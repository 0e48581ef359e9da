# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What sits on the encoder while it is pretrained, and is thrown away after."""

from __future__ import annotations

import torch
from timm.models.vision_transformer import Block
from torch import nn
from torch.nn import functional

from anomalib_aoissl.pretraining.training.tokens import gather_tokens, sincos_positions


class PixelDecoder(nn.Module):
    """Light decoder of a masked autoencoder: visible tokens to the pixels of the masked patches [0].

    Args:
        encoder_dims: Dims of the encoder's tokens.
        dims: Width of the decoder; a multiple of 4 and of ``heads``.
        depth: Blocks of the decoder.
        heads: Attention heads.
        outputs: Values that a patch has, S = channels * patch height * patch width.

    [0]: He et al., 2021, arXiv 2111.06377, section 3.
    """

    def __init__(self, encoder_dims: int, *, dims: int, depth: int, heads: int, outputs: int) -> None:
        super().__init__()
        self.embed = nn.Linear(encoder_dims, dims)
        self.mask_token = nn.Parameter(torch.zeros(dims))
        self.blocks = nn.ModuleList(Block(dims, heads, mlp_ratio=4.0, qkv_bias=True) for _ in range(depth))
        self.norm = nn.LayerNorm(dims)
        self.pixels = nn.Linear(dims, outputs)
        nn.init.normal_(self.mask_token, std=0.02)
        self.apply(_initialise)

    def forward(
        self, tokens: torch.Tensor, visible: torch.Tensor, masked: torch.Tensor, grid: tuple[int, int]
    ) -> torch.Tensor:
        """Return the predicted pixels ``[B, M, S]`` of the masked patches.

        Args:
            tokens: ``[B, T + V, D]`` of the encoder: T prefix tokens, then the visible patches.
            visible: Their indices ``[B, V]``.
            masked: Indices ``[B, M]`` of the patches to predict.
            grid: (rows, columns) of all P = V + M patches.
        """
        positions = sincos_positions(grid, len(self.mask_token)).to(tokens)[None].expand(len(tokens), -1, -1)
        known = self.embed(tokens)  # [B, T + V, d]
        count = tokens.shape[1] - visible.shape[1]  # T
        seen = known[:, count:] + gather_tokens(positions, visible)  # [B, V, d]
        hidden = self.mask_token.to(known.dtype) + gather_tokens(positions, masked)  # [B, M, d]
        sequence = torch.cat([hidden.to(known.dtype), known[:, :count], seen], dim=1)  # [B, M + T + V, d]
        for block in self.blocks:
            sequence = block(sequence)
        predicted: torch.Tensor = self.pixels(self.norm(sequence[:, : masked.shape[1]]))
        return predicted


class PrototypeHead(nn.Module):
    """Tokens to similarities with K learnt prototypes [0]: an MLP, unit length, unit prototypes.

    Args:
        dims: Dims of the tokens, D.
        outputs: Prototypes, K.
        hidden: Width of the MLP.
        bottleneck: Dims of the prototypes.

    [0]: Caron et al., Emerging Properties in Self-Supervised Vision Transformers, 2021, arXiv 2104.14294, appendix C.
    """

    def __init__(self, dims: int, *, outputs: int, hidden: int, bottleneck: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(dims, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, bottleneck)
        )
        self.prototypes = nn.Parameter(torch.randn(outputs, bottleneck))
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return cosine similarities ``[..., K]`` in [-1, 1], in float32, of tokens ``[..., D]``."""
        points = functional.normalize(self.mlp(tokens).float(), dim=-1, eps=1e-6)
        return functional.linear(points, functional.normalize(self.prototypes.float(), dim=-1, eps=1e-6)).float()


def _initialise(module: nn.Module) -> None:
    """Give a linear layer Xavier weights and no bias, as the paper does."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
