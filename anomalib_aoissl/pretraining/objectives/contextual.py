# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Contextual tuning: the patches of one picture must find the labels of another one of the same device.

The objectives of the callbacks learn from pictures alone. Drawn pictures have masks for nothing, so that what the
encoder is for, retrieval, can be trained as it is used [0]. The encoder that ships with the package ends with it.

[0]: Balazevic et al., Towards In-context Scene Understanding, 2023, arXiv 2306.01667, whose retrieval this is.
"""

from __future__ import annotations

import torch
from timm.models import VisionTransformer
from torch import nn
from torch.nn import functional

from anomalib_aoissl.pretraining.training.patches import PatchWhitening, cut_patches
from anomalib_aoissl.pretraining.training.tokens import check_transformer, encode, grid_of, random_offsets

_NOISE_FLOOR = 0.1  # of the whitening, see `PatchWhitening`
_CELLS = 4  # on a side of a patch; labels are averaged within a cell


class ContextualTuning(nn.Module):
    """A transformer whose patch embeddings are searched for labels, and kept from forgetting the pixels.

    For embeddings of unit length, queries ``q [Q, D]`` and a bank ``b [N, D]`` whose patches have the class shares
    ``y [N, L, C]`` in L cells: ``p = softmax(q b^T / temperature) y  [Q, L, C]``, and the loss is the cross-entropy of
    the queries' own shares, a class weighted by the inverse root of its frequency. Added to it is the squared error of
    a linear map from the embeddings to the whitened pixels of the patch, times ``pixels``.

    Args:
        vit: The transformer.
        num_classes: C, background included.
        temperature: Of the softmax over the similarities.
        pixels: Weight of the squared error of the pixels.
    """

    def __init__(
        self,
        vit: VisionTransformer,
        num_classes: int,
        *,
        temperature: float = 0.05,
        pixels: float = 0.3,
    ) -> None:
        super().__init__()
        self.vit = check_transformer(vit)
        self.num_classes, self.temperature, self.pixels = num_classes, temperature, pixels
        self.patch_size: tuple[int, int] = tuple(vit.patch_embed.patch_size)
        values = vit.patch_embed.proj.weight.shape[1] * self.patch_size[0] * self.patch_size[1]
        self.whitening = PatchWhitening(values, _NOISE_FLOOR)
        self.to_pixels = nn.Linear(vit.embed_dim, values)

    def forward(self, images: torch.Tensor, masks: torch.Tensor, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """Return "loss" and its parts "retrieval" and "pixels" of normalised crops; the first half is the bank.

        Args:
            images: ``[2 B, C, h, w]``; crop i and crop i + B show the same device.
            masks: Class indices ``[2 B, h, w]``, 255 ignored.
            generator: Of the places on the grid of positions.
        """
        offsets = random_offsets(self.vit, grid_of(self.vit, images), len(images), generator)
        tokens = encode(self.vit, images, offsets=offsets)[:, self.vit.num_prefix_tokens :]  # [2 B, P, D]
        bank, queries = functional.normalize(tokens, dim=-1).flatten(0, 1).chunk(2)  # [B P, D] each
        shares = cell_shares(masks, self.num_classes, self.patch_size, _CELLS)  # [2 B, P, L, C]
        bank_shares, query_shares = shares.flatten(0, 1).chunk(2)
        retrieval = retrieval_loss(queries, bank, query_shares, bank_shares, self.temperature)
        targets = self.whitening(cut_patches(images, self.patch_size))
        pixels = functional.mse_loss(self.to_pixels(tokens), targets)
        return {"loss": retrieval + self.pixels * pixels, "retrieval": retrieval, "pixels": pixels}


def retrieval_loss(
    queries: torch.Tensor,
    bank: torch.Tensor,
    query_shares: torch.Tensor,
    bank_shares: torch.Tensor,
    temperature: float,
) -> torch.Tensor:
    """Return the weighted cross-entropy of the labels that the queries read out of the bank.

    The weight of a class is 1 / sqrt(frequency + 0.01), scaled so that the mean weight of a pixel is 1.

    Args:
        queries: ``[Q, D]`` of unit length.
        bank: ``[N, D]`` of unit length.
        query_shares: ``[Q, L, C]``, what is to be found; the shares of ignored cells are all 0.
        bank_shares: ``[N, L, C]``, what is there.
        temperature: Of the softmax.
    """
    weights = torch.softmax(queries @ bank.T / temperature, dim=-1)  # [Q, N]
    read = (weights @ bank_shares.flatten(1)).view_as(query_shares)  # [Q, L, C]
    frequency = query_shares.mean(dim=(0, 1))  # [C]
    importance = (frequency + 0.01).rsqrt()
    importance = importance / (importance * frequency).sum().clamp_min(1e-6)
    return -(query_shares * importance * read.clamp_min(1e-4).log()).sum(dim=-1).mean()


def cell_shares(masks: torch.Tensor, num_classes: int, patch_size: tuple[int, int], cells: int) -> torch.Tensor:
    """Return the share ``[B, P, L, C]`` of each class in each of the L = cells ** 2 cells of each patch.

    Args:
        masks: ``[B, H, W]`` class indices; others (255) belong to no class, so that the shares sum to less than 1.
        num_classes: C.
        patch_size: (height, width) px, multiples of ``cells``.
        cells: Cells on a side of a patch.
    """
    known = functional.one_hot(masks.long().clamp(max=num_classes), num_classes + 1)[..., :num_classes]
    planes = known.movedim(-1, 1).float()  # [B, C, H, W]
    side = (patch_size[0] // cells, patch_size[1] // cells)
    small = functional.avg_pool2d(planes, side)  # [B, C, rows * cells, columns * cells]
    cut = functional.unfold(small, cells, stride=cells).transpose(1, 2)  # [B, P, C * L]
    return cut.unflatten(2, (num_classes, cells * cells)).transpose(2, 3)
