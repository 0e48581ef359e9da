# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The torch model: head times decoder, and the head alone at first; uncertainty; what is frozen; errors."""

import numpy as np
import pytest
import torch
from segmenter_runs import fill_head, make_model, make_torch_model, wake

from anomalib_aoissl.encoder.vit import with_means
from anomalib_aoissl.segmenter.torch_model import SegmenterModel, percentile, softened

SHAPES = [((64, 48), 8, 1, 3), ((40, 72), 8, 3, 1), ((8, 8), 8, 1, 4), ((42, 70), 14, 2, 3), ((50, 70), 10, 1, 3)]


@pytest.mark.parametrize(("size", "patch", "batch", "planes"), SHAPES)
@pytest.mark.parametrize("autocontext", [False, True])
def test_an_untrained_decoder_gives_the_head_s_answer(
    size: tuple[int, int], patch: int, batch: int, planes: int, autocontext: bool
) -> None:
    model = make_torch_model(size, 5, planes, autocontext=autocontext, patch_size=patch)
    images = torch.randn(batch, planes, *size)
    with torch.no_grad():
        head = model.head(images, model.extract(images))
        found = model.maps(images)
    torch.testing.assert_close(found, 0.98 * head + 0.02 / 5, atol=1e-5, rtol=1e-4)
    assert torch.equal(found.argmax(dim=1), head.argmax(dim=1))
    assert head.std() > 0.05


@pytest.mark.parametrize(("size", "patch", "batch", "planes"), SHAPES)
def test_the_answer_is_that_of_both_and_says_how_sure_it_is(
    size: tuple[int, int], patch: int, batch: int, planes: int
) -> None:
    model = make_torch_model(size, 5, planes, patch_size=patch)
    wake(model)
    images = torch.randn(batch, planes, *size)
    with torch.no_grad():
        tokens = model.extract(images)
        head = softened(model.head(images, tokens))
        decoder = model.decoder(images, head, model.standardized(tokens)).softmax(dim=1)
        found, result = model.maps(images), model(images)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(batch, *size))
    agreed = head.argmax(dim=1) == decoder.argmax(dim=1)
    assert torch.equal(found.argmax(dim=1)[agreed], head.argmax(dim=1)[agreed])
    assert not torch.equal(found.argmax(dim=1), head.argmax(dim=1))
    assert result.pred_mask.shape == result.anomaly_map.shape == (batch, 1, *size)
    assert result.pred_mask.dtype == torch.uint8
    assert torch.equal(result.pred_mask[:, 0].long(), found.argmax(dim=1))
    torch.testing.assert_close(result.anomaly_map[:, 0], 1 - found.amax(dim=1))
    torch.testing.assert_close(result.pred_score, result.anomaly_map.flatten(1).quantile(0.99, dim=1))


def test_a_better_decoder_counts_more_and_a_bad_one_nothing() -> None:
    model, weights = make_torch_model(), []
    for loss in (0.9, 0.4, 0.3, 0.25, 0.2, 0.0):
        model.weigh(loss, 0.2)
        weights.append(float(model.decoder_weight))
    assert weights == pytest.approx([0, 0, 0.5, 0.75, 1, 1])
    model.weigh(0.1, 0.0)
    assert weights[0] == float(model.decoder_weight)


def test_images_of_a_batch_do_not_see_each_other() -> None:
    model = make_torch_model()
    wake(model)
    images = torch.randn(3, 3, 64, 48)
    with torch.no_grad():
        alone = torch.cat([model.maps(image[None]) for image in images])
        torch.testing.assert_close(model.maps(images), alone, atol=1e-3, rtol=1e-3)


def test_softened_probabilities_are_never_0_and_keep_their_order() -> None:
    hard = torch.tensor([1.0, 0.0, 0.0, 0.0]).reshape(1, 4, 1, 1)
    assert softened(hard).flatten().tolist() == pytest.approx([0.985, 0.005, 0.005, 0.005])
    values = torch.randn(2, 4, 5, 5).softmax(dim=1)
    torch.testing.assert_close(softened(values).sum(dim=1), torch.ones(2, 5, 5))
    assert torch.equal(softened(values).argsort(dim=1), values.argsort(dim=1))


def test_the_seed_is_that_of_the_decoders_first_weights(tiny_encoder: dict) -> None:
    def weights(seed: int) -> torch.Tensor:
        model = make_model(tiny_encoder, seed=seed).model
        model.make_decoder(3)
        assert model.decoder is not None
        return torch.cat([parameter.flatten() for parameter in model.decoder.parameters()])

    first = weights(0)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    assert torch.equal(weights(0), first)
    assert not torch.equal(weights(1), first)
    assert torch.equal(torch.rand(2), expected)  # the global generator is left alone


@pytest.mark.parametrize(("depth", "blocks"), [(1, [0]), (2, [0, 1]), (5, [2, 4])])
def test_tokens_are_those_of_two_blocks_with_means(depth: int, blocks: list[int]) -> None:
    model = make_torch_model(depth=depth, reg_tokens=1)
    images = torch.randn(2, 3, 64, 48)
    maps = model.encoder.vit.forward_intermediates(images, indices=blocks, norm=True, intermediates_only=True)
    torch.testing.assert_close(model.extract(images), with_means(torch.cat(maps, dim=1)))


def test_standardized_tokens_are_the_head_s_features() -> None:
    """Its last features, which it standardises itself, at the resolution of the tokens."""
    model = make_torch_model((64, 64), patch_size=4)  # tokens at each fourth pixel, as the coarse features
    images = torch.randn(1, 3, 64, 64)
    tokens = model.extract(images)
    found, head = model.standardized(tokens), model.head
    coarse = head.features(images, tokens).coarse[0].numpy()
    number = head.directions.shape[1]
    mean, scale = (values[-number:, None, None].numpy() for values in (head.mean, head.scale))
    assert found.shape == (1, number, 16, 16)
    np.testing.assert_allclose(found[0].numpy(), (coarse[-number:] - mean) / scale, atol=1e-3, rtol=1e-3)


def test_the_encoder_is_frozen_and_the_decoder_learns() -> None:
    model = make_torch_model(proj_drop_rate=0.5).train()
    assert model.decoder.training
    assert not any(part.training for part in model.encoder.modules())
    images = torch.randn(2, 3, 64, 48)
    model.maps(images)[:, 0].mean().backward()
    assert all(parameter.grad is None for parameter in model.encoder.parameters())
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {
        f"decoder.{name}" for name, _ in model.decoder.named_parameters()
    }


def test_a_state_loads_into_a_model_whose_head_is_empty() -> None:
    model = make_torch_model(autocontext=True)
    wake(model)
    bare = SegmenterModel(model.encoder)
    bare.make_decoder(5)
    bare.load_state_dict(model.state_dict())
    images = torch.randn(1, 3, 64, 48)
    assert torch.equal(bare.eval()(images).anomaly_map, model(images).anomaly_map)


@pytest.mark.parametrize("count", [1, 2, 50, 101, 4097])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99, 1.0])
def test_percentile_is_torch_s_quantile(count: int, share: float) -> None:
    values = torch.rand(3, count)
    torch.testing.assert_close(percentile(values, share), values.quantile(share, dim=1))


def test_errors_say_what_to_do() -> None:
    model = make_torch_model()
    decoder = model.decoder
    model.make_decoder(5)
    assert model.decoder is decoder
    images, message = torch.randn(1, 3, 64, 48), "is not trained: train it on labelled images first, or load a checkp"
    with pytest.raises(RuntimeError, match=message):
        SegmenterModel(model.encoder)(images)
    unfitted = SegmenterModel(model.encoder)
    unfitted.make_decoder(5)
    with pytest.raises(RuntimeError, match=message):
        unfitted(images)
    fill_head(unfitted, 5)
    assert unfitted(images).pred_mask.shape == (1, 1, 64, 48)
