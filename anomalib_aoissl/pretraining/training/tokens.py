# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""A timm vision transformer read token by token: only some patches, crops of any size, masked patches.

timm's own ``forward_features`` runs every patch of an image of the encoder's size. Pretraining needs three things
beside that: the visible patches alone (MAE), crops that are smaller than the image (all objectives), and patches
that are replaced by a mask token (iBOT). `encode` does these with the modules of the transformer as they are.
"""

from __future__ import annotations

import torch
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.models import VisionTransformer


def check_transformer(vit: object) -> VisionTransformer:
    """Return the transformer after checking that `encode` can run it.

    Raises:
        ValueError: If it is no plain timm ``VisionTransformer`` with absolute position embeddings.
    """
    if not isinstance(vit, VisionTransformer):
        msg = (
            f"Pretraining reads a timm VisionTransformer token by token, got {type(vit).__name__}. Choose a plain one "
            "(aoissl_vit_tiny_patch8, vit_tiny_patch16_224, deit_small_patch16_224, vit_small_patch14_dinov2), or "
            "leave pretraining out."
        )
        raise ValueError(msg)  # noqa: TRY004 - the encoder argument has an unfit value
    return vit


def grid_of(vit: VisionTransformer, images: torch.Tensor) -> tuple[int, int]:
    """Return (rows, columns) of patches of images ``[B, C, H, W]``.

    Raises:
        ValueError: If the patch size does not divide the images.
    """
    height, width = images.shape[-2:]
    rows, columns = vit.patch_embed.patch_size
    if height % rows or width % columns:
        msg = (
            f"Images of {height}x{width} px (height x width) cannot be cut into patches of {rows}x{columns} px. "
            f"Choose a crop size whose sides are multiples of {rows} and {columns}."
        )
        raise ValueError(msg)
    return height // rows, width // columns


def encode(
    vit: VisionTransformer,
    images: torch.Tensor,
    *,
    keep: torch.Tensor | None = None,
    offsets: torch.Tensor | None = None,
    masked: torch.Tensor | None = None,
    mask_token: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the normalised tokens ``[B, T + V, D]``: T prefix tokens (class, registers), then V patches.

    Args:
        vit: The transformer.
        images: Normalised images ``[B, C, H, W]`` of any size that the patch divides.
        keep: Indices ``[B, V]`` of the patches that the transformer runs; all P of them by default.
        offsets: (row, column) ``[B, 2]`` where each crop lies on the encoder's grid of positions; see `_positions`.
        masked: Patches ``[B, P]`` (bool) whose embedding is replaced by the mask token before positions are added.
        mask_token: ``[D]``; needed with ``masked``.
    """
    grid = grid_of(vit, images)
    patches = vit.patch_embed.norm(vit.patch_embed.proj(images).flatten(2).transpose(1, 2))  # [B, P, D]
    if masked is not None and mask_token is not None:
        patches = torch.where(masked[..., None], mask_token.to(patches.dtype), patches)
    prefix_positions, patch_positions = _positions(vit, grid, offsets)
    if patch_positions is not None:
        patches = patches + patch_positions
    if keep is not None:
        patches = gather_tokens(patches, keep)  # [B, V, D]
    tokens = torch.cat([*_prefix(vit, len(images), prefix_positions), patches], dim=1)  # [B, T + V, D]
    tokens = vit.norm_pre(vit.pos_drop(tokens))
    for block in vit.blocks:
        tokens = block(tokens)
    normalised: torch.Tensor = vit.norm(tokens)
    return normalised


def gather_tokens(tokens: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """Return the tokens ``[B, V, D]`` at the indices ``[B, V]`` of tokens ``[B, P, D]``."""
    return tokens.gather(1, indices[..., None].expand(-1, -1, tokens.shape[-1]))


def random_offsets(
    vit: VisionTransformer, grid: tuple[int, int], batch: int, generator: torch.Generator
) -> torch.Tensor | None:
    """Return a random place ``[B, 2]`` on the transformer's grid for each crop, or None where a crop is larger.

    The place has nothing to do with where the crop was cut: what a patch looks like must not tell where it is.
    """
    slack = [whole - part + 1 for whole, part in zip(vit.patch_embed.grid_size, grid, strict=True)]
    if min(slack) < 1:
        return None
    draws = torch.rand(batch, 2, generator=generator, device=generator.device)
    return (draws * torch.tensor(slack, device=generator.device)).long()


def sincos_positions(grid: tuple[int, int], dims: int) -> torch.Tensor:
    """Return fixed position embeddings ``[P, D]`` of a grid (rows, columns): sines and cosines of both axes.

    Half of the dims, of which there is a multiple of 4, tell the row, half the column; the wavelengths run from 2 pi to
    10000 * 2 pi patches, as in [0].

    [0]: Vaswani et al., Attention Is All You Need, 2017, arXiv 1706.03762; two axes as in MAE, arXiv 2111.06377.
    """
    frequencies = 10000.0 ** -(torch.arange(dims // 4, dtype=torch.float64) / (dims // 4))
    halves = []
    for axis, size in enumerate(grid):
        angles = torch.arange(size, dtype=torch.float64)[:, None] * frequencies  # [size, D / 4]
        half = torch.cat([angles.sin(), angles.cos()], dim=1)  # [size, D / 2]
        halves.append(half.unsqueeze(1 - axis).expand(*grid, -1))
    return torch.cat(halves, dim=-1).flatten(0, 1).float()  # [P, D]


def _prefix(vit: VisionTransformer, batch: int, positions: torch.Tensor | None) -> list[torch.Tensor]:
    """Return the class and register tokens ``[B, T, D]``, with their positions where they have any."""
    tokens = [token.expand(batch, -1, -1) for token in (vit.cls_token, vit.reg_token) if token is not None]
    if not tokens:
        return []
    prefix = torch.cat(tokens, dim=1)
    return [prefix if positions is None else prefix + positions]


def _positions(
    vit: VisionTransformer, grid: tuple[int, int], offsets: torch.Tensor | None
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Return the position embeddings of the prefix ``[1, T, D]`` and of the patches ``[1 or B, P, D]``.

    A grid of the encoder's own size takes them as they are. With ``offsets`` a smaller grid takes the window of the
    positions that begins there, so that neighbours are as far apart as in a whole image; otherwise they are
    interpolated as timm does.
    """
    table: torch.Tensor | None = vit.pos_embed
    if table is None:
        return None, None
    prefix = None
    if not vit.no_embed_class and vit.num_prefix_tokens:
        prefix, table = table[:, : vit.num_prefix_tokens], table[:, vit.num_prefix_tokens :]
    full = tuple(vit.patch_embed.grid_size)
    if grid == full:
        return prefix, table
    if offsets is None or grid[0] > full[0] or grid[1] > full[1]:
        return prefix, resample_abs_pos_embed(table, new_size=list(grid), old_size=list(full), num_prefix_tokens=0)
    return prefix, table[0, _window_indices(grid, full, offsets)]  # [B, P, D]


def _window_indices(grid: tuple[int, int], full: tuple[int, int], offsets: torch.Tensor) -> torch.Tensor:
    """Return the indices ``[B, P]`` into the full grid of the windows that begin at ``offsets`` ``[B, 2]``."""
    rows = offsets[:, :1] + torch.arange(grid[0], device=offsets.device)  # [B, rows]
    columns = offsets[:, 1:] + torch.arange(grid[1], device=offsets.device)  # [B, columns]
    return (rows[:, :, None] * full[1] + columns[:, None, :]).flatten(1)
