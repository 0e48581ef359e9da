# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Layer-wise rates, freezing and adapters of the encoder."""

import copy

import pytest
import torch

from anomalib_aoissl.encoder import PatchEncoder
from anomalib_aoissl.segmenter.adaptation import LowRankLinear, add_low_rank, freeze, merged, parameter_groups
from anomalib_aoissl.segmenter.heads import build_head

DEPTH = 3


@pytest.fixture
def encoder(tiny_encoder: dict) -> PatchEncoder:
    description = {**tiny_encoder, "model_args": {**tiny_encoder["model_args"], "depth": DEPTH, "reg_tokens": 2}}
    return PatchEncoder(description, image_size=(32, 48), pretrained=False)


def learning(encoder: PatchEncoder) -> set[str]:
    return {name for name, parameter in encoder.vit.named_parameters() if parameter.requires_grad}


def test_rates_follow_the_formula_and_every_weight_has_one(encoder: PatchEncoder) -> None:
    shape = {"embed_dim": 32, "blocks": 3, "patch_size": (8, 8), "grid_size": (4, 6), "num_classes": 4, "channels": 8}
    head = build_head("conv", **shape, probe=True)
    groups = parameter_groups(
        encoder.vit, head, learning_rate=0.1, encoder_rate=0.2, layer_decay=0.5, weight_decay=0.05
    )
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert (
        sum(len(group["params"]) for group in groups) == len(rates) == len([*encoder.parameters(), *head.parameters()])
    )
    for name, parameter in encoder.vit.named_parameters():
        layer = int(name.split(".")[1]) + 1 if name.startswith("blocks.") else DEPTH if "norm" in name else 0
        assert rates[id(parameter)] == pytest.approx(0.02 * 0.5 ** (DEPTH - layer)), name
        none = parameter.ndim == 1 or name in {"pos_embed", "cls_token", "reg_token"}
        assert decays[id(parameter)] == (0 if none else 0.05), name
    for name, parameter in head.named_parameters():
        assert rates[id(parameter)] == pytest.approx(0.02 if name.startswith("linear.") else 0.1), name
        assert decays[id(parameter)] == (0 if parameter.ndim == 1 else 0.05), name


def test_freezing_keeps_the_first_blocks_and_what_comes_before(encoder: PatchEncoder) -> None:
    everything = {name for name, _ in encoder.vit.named_parameters()}
    freeze(encoder.vit, 0)
    assert learning(encoder) == everything
    freeze(encoder.vit, 2)
    assert learning(encoder) == {name for name in everything if name.startswith(("blocks.2", "norm"))}
    freeze(encoder.vit, "all")
    assert learning(encoder) == set()


@pytest.mark.parametrize("blocks", [-1, DEPTH + 1, "some"])
def test_freezing_refuses_other_numbers(encoder: PatchEncoder, blocks: int | str) -> None:
    with pytest.raises(ValueError, match=rf'must be "all" or a number of first blocks 0..{DEPTH}'):
        freeze(encoder.vit, blocks)


def test_adapters_begin_as_nothing_and_learn_alone(encoder: PatchEncoder) -> None:
    images = torch.randn(2, 3, 32, 48)
    before = encoder(images)
    add_low_rank(encoder.vit, 4)
    add_low_rank(encoder.vit, 4)
    torch.testing.assert_close(encoder(images), before)
    assert sum(isinstance(part, LowRankLinear) for part in encoder.modules()) == 2 * DEPTH
    freeze(encoder.vit, 1)
    assert len(learning(encoder)) == 2 * 2 * (DEPTH - 1)
    assert all(name.endswith((".up", ".down")) and "blocks.0" not in name for name in learning(encoder))


def test_merged_adapters_equal_unmerged_ones(encoder: PatchEncoder) -> None:
    plain = set(encoder.state_dict())
    add_low_rank(encoder.vit, 4)
    freeze(encoder.vit, 0)
    images = torch.randn(2, 3, 32, 48)
    before = encoder(images).detach()
    target = torch.randn_like(before)
    optimizer = torch.optim.SGD([p for p in encoder.parameters() if p.requires_grad], lr=30.0)
    for _ in range(2):  # the first step moves `up` alone
        optimizer.zero_grad()
        (encoder(images) - target).square().mean().backward()
        optimizer.step()
    after = encoder(images)
    assert (after - before).abs().max() > 1e-2
    result = merged(encoder)
    torch.testing.assert_close(result(images), after, atol=1e-5, rtol=1e-4)
    assert set(result.state_dict()) == plain
    assert merged(result) is result
    torch.testing.assert_close(encoder(images), after)
    assert any(isinstance(part, LowRankLinear) for part in encoder.modules())
    copied = copy.deepcopy(encoder)
    copied.load_state_dict(encoder.state_dict())


def test_adapters_refuse_what_leaves_nothing(encoder: PatchEncoder) -> None:
    with pytest.raises(ValueError, match=r"lora_rank=32 must lie in 0..31"):
        add_low_rank(encoder.vit, 32)
    add_low_rank(encoder.vit, 2)
    with pytest.raises(ValueError, match="leaves no block for the adapters"):
        freeze(encoder.vit, "all")
