# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The torch model: pyramid sizes, pooling, heads, percentile, gradients."""

import pytest
import torch
from torch.nn import functional

from anomalib_aoissl.encoder import PatchEncoder
from anomalib_aoissl.segmenter.heads import HEADS
from anomalib_aoissl.segmenter.torch_model import SegmenterModel, percentile
from anomalib_aoissl.segmenter.upernet import FeaturePyramid, PyramidPooling, pooling_weights


def make_model(head: str = "upernet", size: tuple[int, int] = (64, 48), **changes: int) -> SegmenterModel:
    channels = changes.pop("in_channels", 3)
    arguments = {"patch_size": 8, "embed_dim": 32, "depth": 4, "num_heads": 2, **changes}
    description = {"architecture": "vit_tiny_patch16_224", "model_args": arguments}
    encoder = PatchEncoder(description, image_size=size, in_channels=channels, pretrained=False)
    model = SegmenterModel(encoder, head=head, head_channels=16)
    model.make_head(5)
    wake(model)
    return model.eval()


def wake(model: SegmenterModel) -> None:
    """Give random weights to the layers of the head that are 0 before training, so that scores say something."""
    for parameter in model.head.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.2)


@pytest.mark.parametrize(
    ("patch", "doublings"), [(16, [2, 1, 0, -1]), (14, [2, 1, 0, -1]), (8, [1, 0, -1, -2]), (4, [0, -1, -2, -3])]
)
@pytest.mark.parametrize("grid", [(8, 5), (7, 9), (1, 1)])
def test_the_pyramid_has_the_sizes_it_says(patch: int, doublings: list[int], grid: tuple[int, int]) -> None:
    pyramid = FeaturePyramid(32, (patch, patch))
    assert pyramid.doublings == doublings
    levels = pyramid([torch.randn(2, 32, *grid) for _ in range(4)])
    assert [tuple(level.shape[-2:]) for level in levels] == pyramid.sizes(grid)
    assert [level.shape[1] for level in levels] == pyramid.channels
    strides = [grid[0] * patch / level.shape[-2] for level in levels[:2]]
    if patch in {8, 16} and grid[0] > 1:
        assert strides == [4, 8]


@pytest.mark.parametrize("size", [(16, 16), (5, 7), (1, 2), (13, 6)])
@pytest.mark.parametrize("bins", [1, 2, 3, 6])
def test_pooling_is_torch_s_adaptive_pooling(size: tuple[int, int], bins: int) -> None:
    features = torch.randn(2, 3, *size)
    pooled = pooling_weights(size[0], bins) @ features @ pooling_weights(size[1], bins).T
    torch.testing.assert_close(pooled, functional.adaptive_avg_pool2d(features, bins))


def test_pooling_learns_from_one_pixel() -> None:
    pooling = PyramidPooling(8, 16, (1, 1)).train()
    features = torch.randn(1, 8, 1, 1, requires_grad=True)
    pooling(features).sum().backward()
    assert features.grad.abs().sum() > 0


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(("size", "batch", "channels"), [((64, 48), 1, 3), ((40, 72), 3, 1), ((8, 8), 1, 4)])
def test_outputs_have_the_input_s_size(head: str, size: tuple[int, int], batch: int, channels: int) -> None:
    model = make_model(head, size, in_channels=channels)
    images = torch.randn(batch, channels, *size)
    with torch.no_grad():
        result, scores = model(images), model.scores(images)
    assert result.pred_mask.shape == result.anomaly_map.shape == (batch, 1, *size)
    assert result.pred_mask.dtype == torch.uint8
    assert torch.equal(result.pred_mask[:, 0].long(), scores.argmax(dim=1))
    torch.testing.assert_close(result.anomaly_map[:, 0], 1 - scores.softmax(dim=1).amax(dim=1))
    torch.testing.assert_close(result.pred_score, result.anomaly_map.flatten(1).quantile(0.99, dim=1))


@pytest.mark.parametrize("head", HEADS)
def test_every_weight_gets_a_gradient(head: str) -> None:
    model = make_model(head, reg_tokens=1).train()
    model.scores(torch.randn(2, 3, 64, 48)).square().mean().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert without == []


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_an_encoder_of_any_depth_feeds_four_levels(depth: int) -> None:
    model = make_model(depth=depth)
    maps = model.extract(torch.randn(1, 3, 64, 48))
    assert [m.shape for m in maps] == [(1, 32, 8, 6)] * 4
    assert model.encoder.block_indices[-1] == depth - 1


def test_features_are_those_of_the_blocks() -> None:
    model = make_model()
    images = torch.randn(1, 3, 64, 48)
    maps = model.extract(images)
    wanted = model.encoder.vit.forward_intermediates(images, indices=[0, 1, 2, 3], norm=True, intermediates_only=True)
    for ours, theirs in zip(maps, wanted, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("count", [1, 2, 50, 101, 4097])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99, 1.0])
def test_percentile_is_torch_s_quantile(count: int, share: float) -> None:
    values = torch.rand(3, count)
    torch.testing.assert_close(percentile(values, share), values.quantile(share, dim=1))


def test_small_heads_have_fewer_weights() -> None:
    counts = [sum(p.numel() for p in make_model(head).head.parameters()) for head in HEADS]
    assert counts == sorted(counts, reverse=True)


def test_errors_say_what_to_do() -> None:
    model = make_model()
    with pytest.raises(ValueError, match=r"The head knows 5 classes, 3 are asked for"):
        model.make_head(3)
    model.make_head(5)
    bare = SegmenterModel(model.encoder)
    with pytest.raises(RuntimeError, match="has no head yet: train it on labelled images first, or load a checkpoint"):
        bare(torch.randn(1, 3, 64, 48))
    with pytest.raises(ValueError, match=r"head='fpn' is unknown; the heads are \['upernet', 'conv', 'linear'\]"):
        SegmenterModel(model.encoder, head="fpn")
    with pytest.raises(ValueError, match="head_channels=3 must be even"):
        SegmenterModel(model.encoder, head_channels=3).make_head(2)
