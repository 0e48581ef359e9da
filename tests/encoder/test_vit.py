# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""`PatchEncoder` gives the tokens of timm's own forward pass, for every kind of vision transformer and size."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from anomalib_aoissl.encoder.architecture import SHIPPED_TRANSFORMER
from anomalib_aoissl.encoder.vit import PatchEncoder, even_blocks, with_means

SMALL = {"embed_dim": 32, "depth": 2, "num_heads": 2}


def described(architecture: str, **model_args: object) -> dict[str, object]:
    return {"architecture": architecture, "model_args": {**SMALL, **model_args}}


@pytest.mark.parametrize(
    ("architecture", "patch", "prefix"),
    [
        ("vit_tiny_patch16_224", 16, 1),
        ("vit_small_patch8_224", 8, 1),
        ("vit_small_patch14_reg4_dinov2", 14, 5),
        ("vit_tiny_patch16_224", 4, 1),
    ],
)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_tokens_are_timms_without_the_prefix(architecture: str, patch: int, prefix: int, channels: int) -> None:
    size = (3 * patch, 5 * patch)
    encoder = PatchEncoder(
        described(architecture, patch_size=patch), image_size=size, in_channels=channels, pretrained=False
    ).eval()
    images = torch.rand(3, channels, *size)
    expected = encoder.vit.forward_features(images)
    assert expected.shape[1] == 15 + prefix
    torch.testing.assert_close(encoder(images), expected[:, prefix:])
    assert encoder.grid_size == (3, 5)
    assert encoder.embed_dim == 32


def test_tokens_of_blocks_that_are_not_read() -> None:
    encoder = PatchEncoder(described("vit_tiny_patch16_224"), image_size=(32, 48), pretrained=False).eval()
    images = torch.rand(2, 3, 32, 48)
    first, second = encoder.tokens_of(images, [0, 1])
    block = encoder.vit.blocks[0](encoder.vit._pos_embed(encoder.vit.patch_embed(images)))
    torch.testing.assert_close(first, encoder.vit.norm(block)[:, 1:])
    torch.testing.assert_close(second, encoder(images))


@pytest.mark.parametrize("grid", [(3, 4), (16, 15), (1, 1)])
def test_tokens_stand_with_means_of_those_around(grid: tuple[int, int]) -> None:
    tokens = torch.rand(2, 3, *grid)
    found = with_means(tokens)
    assert found.shape == (2, 9, *grid)
    assert torch.equal(found[:, :3], tokens)
    for part, reach in ((found[:, 3:6], 2), (found[:, 6:], 6)):
        for row, column in np.ndindex(*grid):
            rows = slice(max(row - reach, 0), row + reach + 1)
            columns = slice(max(column - reach, 0), column + reach + 1)
            mean = tokens[:, :, rows, columns].mean(dim=(2, 3))
            assert torch.allclose(part[:, :, row, column], mean, atol=1e-6)


@pytest.mark.parametrize(("depth", "blocks"), [(1, [0]), (2, [0, 1]), (5, [2, 4])])
def test_tokens_are_those_of_two_blocks_with_means(depth: int, blocks: list[int]) -> None:
    encoder = PatchEncoder(described("vit_tiny_patch16_224", depth=depth), image_size=(32, 48), pretrained=False).eval()
    images = torch.rand(2, 3, 32, 48)
    maps = encoder.vit.forward_intermediates(images, indices=blocks, norm=True, intermediates_only=True)
    read = encoder.read(images)
    torch.testing.assert_close(read.tokens, with_means(torch.cat(maps, dim=1)))
    torch.testing.assert_close(read.embeddings, maps[-1].flatten(2).transpose(1, 2))
    assert encoder.token_dim == read.tokens.shape[1] == 3 * 32 * len(blocks)
    assert encoder.token_grid == encoder.grid_size == (2, 3)


def test_even_blocks_end_with_the_last() -> None:
    assert even_blocks(4, 4) == [0, 1, 2, 3]
    assert even_blocks(24, 4) == [5, 11, 17, 23]
    assert even_blocks(1, 4) == [0, 0, 0, 0]
    assert even_blocks(12, 2) == [5, 11]


def test_local_dir_weights_constants_and_channels(tmp_path: Path) -> None:
    source = timm.create_model("vit_tiny_patch16_224", **SMALL, num_classes=0)
    config = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    timm.models.save_for_hf(source, str(tmp_path), model_config={"pretrained_cfg": config}, safe_serialization=True)
    encoder = PatchEncoder(f"local-dir:{tmp_path}", image_size=(32, 48), in_channels=1)
    torch.testing.assert_close(encoder.vit.blocks[1].mlp.fc1.weight, source.blocks[1].mlp.fc1.weight)
    # timm adapts a colour layer to grey by summing its planes
    torch.testing.assert_close(
        encoder.vit.patch_embed.proj.weight, source.patch_embed.proj.weight.sum(dim=1, keepdim=True)
    )
    assert (encoder.mean, encoder.std) == ((0.1,), (0.4,))
    rebuilt = PatchEncoder(encoder.describe(), image_size=(32, 48), in_channels=1, pretrained=False)
    rebuilt.load_state_dict(encoder.state_dict())
    images = torch.rand(2, 1, 32, 48)
    torch.testing.assert_close(rebuilt.eval()(images), encoder.eval()(images))
    assert (rebuilt.mean, rebuilt.std) == ((0.1,), (0.4,))


def test_the_shipped_one_is_in_timms_registry_and_the_same_in_every_run() -> None:
    assert timm.is_model(SHIPPED_TRANSFORMER)
    torch.manual_seed(1)
    first = PatchEncoder(image_size=(64, 64)).state_dict()
    torch.manual_seed(2)
    second = PatchEncoder(image_size=(64, 64)).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    torch.manual_seed(2)
    expected = torch.rand(3)
    torch.manual_seed(2)
    PatchEncoder(image_size=(64, 64))
    assert torch.equal(torch.rand(3), expected)  # the caller's randomness is left as it was


@pytest.mark.parametrize(
    ("encoder", "match"),
    [
        ("resnet18", "is no plain vision transformer"),
        ("swin_tiny_patch4_window7_224", "is no plain vision transformer"),
        ("vit_tyni_patch16", "is no model that timm knows"),
        ("local-dir:/nowhere", "/nowhere must hold the config.json and model.safetensors"),
        ({"name": "vit"}, 'needs "architecture"'),
    ],
)
def test_what_is_no_encoder_raises(encoder: str | dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        PatchEncoder(encoder, image_size=(224, 224), pretrained=False)


def test_a_size_that_the_patch_does_not_divide_names_sizes_that_fit() -> None:
    with pytest.raises(ValueError, match=r"patch is 16x16 px .* Sizes that fit: \(96, 64\) or \(112, 64\)"):
        PatchEncoder("vit_tiny_patch16_224", image_size=(100, 64), pretrained=False)
