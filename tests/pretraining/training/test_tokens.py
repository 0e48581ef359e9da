# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Callable
from typing import Any

import pytest
import torch

from anomalib_aoissl.encoder.vit import PatchEncoder
from anomalib_aoissl.pretraining.training.tokens import (
    check_transformer,
    encode,
    gather_tokens,
    grid_of,
    random_offsets,
    sincos_positions,
)

MakeEncoder = Callable[..., PatchEncoder]

VARIANTS: list[dict[str, Any]] = [
    {},
    {"reg_tokens": 3},
    {"reg_tokens": 2, "no_embed_class": True},
    {"class_token": False, "global_pool": "avg"},
    {"pos_embed": "none"},
    {"pre_norm": True},
    {"dynamic_img_size": True},
]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_all_patches_give_what_timm_gives(make_encoder: MakeEncoder, variant: dict[str, Any], channels: int) -> None:
    vit = make_encoder(in_channels=channels, **variant).vit.eval()
    images = torch.randn(2, channels, 48, 64)
    torch.testing.assert_close(encode(vit, images), vit.forward_features(images))


@pytest.mark.parametrize("variant", VARIANTS[:4])
def test_a_permutation_of_all_patches_is_the_same_set(make_encoder: MakeEncoder, variant: dict[str, Any]) -> None:
    vit = make_encoder(**variant).vit.eval()
    images = torch.randn(2, 3, 48, 64)
    order = torch.stack([torch.randperm(48), torch.randperm(48)])
    whole, prefix = encode(vit, images), vit.num_prefix_tokens
    shuffled = encode(vit, images, keep=order)
    torch.testing.assert_close(shuffled[:, :prefix], whole[:, :prefix], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(shuffled[:, prefix:], gather_tokens(whole[:, prefix:], order), atol=1e-5, rtol=1e-4)


def test_hidden_patches_do_not_reach_the_encoder(make_encoder: MakeEncoder) -> None:
    vit = make_encoder(reg_tokens=2).vit.eval()
    keep = torch.arange(12).expand(2, -1)  # the upper 2 of 6 rows of 8 x 8 patches are 16 patches
    images = torch.randn(2, 3, 48, 64)
    other = images.clone()
    other[..., 16:, :] = 0
    tokens = encode(vit, images, keep=keep)
    assert tokens.shape == (2, 3 + 12, 32)
    assert torch.equal(tokens, encode(vit, other, keep=keep))


def test_a_crop_takes_the_window_of_positions_at_its_offset(make_encoder: MakeEncoder) -> None:
    vit = make_encoder(depth=1).vit.eval()
    images = torch.randn(1, 3, 48, 64)
    rows, columns = torch.meshgrid(torch.arange(2, 5), torch.arange(3, 7), indexing="ij")
    keep = (rows * 8 + columns).flatten()[None]
    crop = images[..., 16:40, 24:56]
    torch.testing.assert_close(
        encode(vit, crop, offsets=torch.tensor([[2, 3]])), encode(vit, images, keep=keep), atol=1e-5, rtol=1e-4
    )


def test_offsets_stay_on_the_grid(make_encoder: MakeEncoder) -> None:
    vit = make_encoder().vit
    offsets = random_offsets(vit, (4, 3), 500, torch.Generator().manual_seed(0))
    assert offsets is not None
    assert offsets.min(dim=0).values.tolist() == [0, 0]
    assert offsets.max(dim=0).values.tolist() == [2, 5]
    assert random_offsets(vit, (7, 3), 5, torch.Generator()) is None


def test_larger_crops_interpolate_positions(make_encoder: MakeEncoder) -> None:
    vit = make_encoder().vit.eval()
    assert encode(vit, torch.randn(1, 3, 64, 96)).shape == (1, 1 + 8 * 12, 32)


def test_masked_patches_are_replaced(make_encoder: MakeEncoder) -> None:
    vit = make_encoder().vit.eval()
    images = torch.randn(1, 3, 48, 64)
    masked = torch.ones(1, 48, dtype=torch.bool)
    token = torch.randn(32)
    one = encode(vit, images, masked=masked, mask_token=token)
    assert torch.equal(one, encode(vit, torch.randn(1, 3, 48, 64), masked=masked, mask_token=token))
    assert torch.equal(encode(vit, images, masked=~masked, mask_token=token), encode(vit, images))


def test_sincos_positions_by_hand() -> None:
    table = sincos_positions((3, 5), 8)
    row, column = 2, 4
    entry = table[row * 5 + column]
    expected = []
    for place in (row, column):
        angles = torch.tensor([place / 10000**0.0, place / 10000**0.5])
        expected += [*angles.sin(), *angles.cos()]
    torch.testing.assert_close(entry, torch.stack(expected))


def test_what_cannot_be_read_raises(make_encoder: MakeEncoder) -> None:
    with pytest.raises(ValueError, match="VisionTransformer token by token, got Linear"):
        check_transformer(torch.nn.Linear(1, 1))
    with pytest.raises(ValueError, match="44x64 px"):
        grid_of(make_encoder().vit, torch.zeros(1, 3, 44, 64))
