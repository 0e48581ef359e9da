# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What of the encoder learns, and how fast: freezing, low-rank adapters, layer-wise learning rates."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from timm.models import VisionTransformer
from timm.optim import param_groups_layer_decay, param_groups_weight_decay  # type: ignore[attr-defined]
from torch import nn
from torch.nn import functional

from .heads import linear_part

__all__ = [
    "LowRankLinear",
    "add_low_rank",
    "freeze",
    "merged",
    "merged_model",
    "parameter_groups",
]

_Module = TypeVar("_Module", bound=nn.Module)


class LowRankLinear(nn.Linear):
    """A linear layer plus a product of two narrow matrices, the second 0 at first [0].

    [0]: Hu et al., LoRA, 2021, arXiv 2106.09685; scaled by 1, so that a rank needs no second number.

    Args:
        linear: The layer that is adapted; its weights are taken over.
        rank: Rank of the change.
    """

    def __init__(self, linear: nn.Linear, rank: int) -> None:
        like: dict[str, Any] = {"device": linear.weight.device, "dtype": linear.weight.dtype}
        super().__init__(linear.in_features, linear.out_features, linear.bias is not None, **like)
        self.weight, self.bias = linear.weight, linear.bias
        self.down = nn.Parameter(torch.empty(rank, linear.in_features, **like))
        self.up = nn.Parameter(torch.zeros(linear.out_features, rank, **like))
        nn.init.normal_(self.down, std=linear.in_features**-0.5)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return ``[..., out]`` of inputs ``[..., in]``."""
        change = functional.linear(functional.linear(inputs, self.down), self.up)
        return functional.linear(inputs, self.weight, self.bias) + change

    def merge(self) -> nn.Linear:
        """Return a plain layer with the same result."""
        linear = nn.Linear(self.in_features, self.out_features, self.bias is not None, device=self.weight.device)
        linear.weight = nn.Parameter((self.weight + self.up @ self.down).detach())
        linear.bias = self.bias
        return linear


def add_low_rank(vit: VisionTransformer, rank: int) -> None:
    """Give the attention's qkv and projection of each block an adapter of the rank; nothing changes where they have it.

    Raises:
        ValueError: If the rank is negative or not below the width.
    """
    if not 0 <= rank < vit.embed_dim:
        msg = f"lora_rank={rank} must lie in 0..{vit.embed_dim - 1}, 0 for no adapters; 8 is a common choice."
        raise ValueError(msg)
    for name, linear in list(vit.named_modules()) if rank else ():
        if type(linear) is nn.Linear and name.endswith(("attn.qkv", "attn.proj")):
            vit.set_submodule(name, LowRankLinear(linear, rank))


def merged(module: _Module) -> _Module:
    """Return the module without adapters: itself where it has none, else a copy with the adapted weights as its own."""
    if not any(isinstance(part, LowRankLinear) for part in module.modules()):
        return module
    module = copy.deepcopy(module)
    for name, part in list(module.named_modules()):
        if isinstance(part, LowRankLinear):
            module.set_submodule(name, part.merge())
    return module


@contextmanager
def merged_model(module: Any) -> Iterator[None]:
    """Have the adapters merged into the weights of ``module.model`` while the block runs."""
    model = module.model
    module.model = merged(model)
    try:
        yield
    finally:
        module.model = model


def freeze(vit: VisionTransformer, blocks: int | str) -> None:
    """Let the first blocks, and what comes before them, keep their weights; "all" for the whole transformer.

    Adapters, where there are any, learn in the other blocks in place of their weights.

    Raises:
        ValueError: If there are not so many blocks, or nothing is left for the adapters.
    """
    depth = len(vit.blocks)
    adapted = any(isinstance(part, LowRankLinear) for part in vit.modules())
    count = depth if blocks == "all" else blocks
    if not isinstance(count, int) or not 0 <= count <= depth:
        msg = f'freeze={blocks!r} must be "all" or a number of first blocks 0..{depth}.'
        raise ValueError(msg)
    if adapted and count == depth:
        msg = f"freeze={blocks!r} leaves no block for the adapters; with lora_rank, freeze=0 already keeps the weights."
        raise ValueError(msg)
    for name, parameter in vit.named_parameters():
        block = int(name.split(".")[1]) if name.startswith("blocks.") else depth if name.startswith("norm.") else -1
        learns = blocks != "all" and (block >= count or count == 0)
        parameter.requires_grad = learns and (not adapted or name.endswith((".down", ".up")))


def parameter_groups(
    vit: VisionTransformer,
    head: nn.Module,
    *,
    learning_rate: float,
    encoder_rate: float,
    layer_decay: float,
    weight_decay: float,
) -> list[dict[str, Any]]:
    """Return the optimiser's groups: what is fresh learns fast, what is known slowly, the deeper the slower [0].

    A decoder learns at the full rate; the linear part of a head, the last block and the final norm at ``encoder_rate``
    times it, each earlier block at ``layer_decay`` times the next, and what comes before them at ``layer_decay`` times
    the first. Norms, biases, tokens and position embeddings have no weight decay.

    [0]: Bao et al., BEiT, 2021, arXiv 2106.08254.
    """
    layers = param_groups_layer_decay(
        vit, weight_decay, no_weight_decay_list=vit.no_weight_decay(), layer_decay=layer_decay
    )
    slow = learning_rate * encoder_rate
    rates = [slow * group["lr_scale"] for group in layers]  # timm gives the last block the scale 1
    linear = linear_part(head)
    for part, rate in ((linear, slow), (head if linear is None else getattr(head, "decoder", None), learning_rate)):
        groups = [] if part is None else param_groups_weight_decay(part, weight_decay)
        layers, rates = [*layers, *groups], [*rates, *[rate] * len(groups)]
    return [
        {"params": group["params"], "weight_decay": group["weight_decay"], "lr": rate}
        for group, rate in zip(layers, rates, strict=True)
    ]
