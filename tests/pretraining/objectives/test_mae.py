# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Callable
from typing import Any

import pytest
import torch

from anomalib_aoissl.encoder.vit import PatchEncoder
from anomalib_aoissl.pretraining.objectives.mae import MAEPretraining, MaskedAutoencoder
from anomalib_aoissl.pretraining.run import is_untrained
from anomalib_aoissl.pretraining.training import initialization
from anomalib_aoissl.pretraining.training.initialization import even_last_norm, whiten_patch_embedding
from anomalib_aoissl.pretraining.training.objective import Progress
from anomalib_aoissl.pretraining.training.schedule import cosine, warmup_cosine, warmup_linear

MakeEncoder = Callable[..., PatchEncoder]
PROGRESS = Progress(0, 10)


def _mae(encoder: PatchEncoder, **arguments: Any) -> MaskedAutoencoder:
    given = {"crops": {"size": (48, 64)}, "decoder": {"dims": 16, "heads": 2}, "target": "pixels", **arguments}
    return MAEPretraining(**given).build_objective(encoder.vit)


@pytest.mark.parametrize(("ratio", "expected"), [(0.0, 48), (0.75, 12), (1.0, 0)])
def test_the_blocks_run_visible_and_prefix_tokens_alone(make_encoder: MakeEncoder, ratio: float, expected: int) -> None:
    encoder = make_encoder(reg_tokens=2)
    counts = []
    encoder.vit.blocks[0].register_forward_hook(lambda _, inputs, __: counts.append(inputs[0].shape[1]))
    loss = _mae(encoder, mask_ratio=ratio)({"crop": torch.randn(2, 1, 3, 48, 64)}, torch.Generator(), PROGRESS)["loss"]
    loss.backward()
    assert counts == [3 + expected]
    assert torch.isfinite(loss)


def test_the_loss_is_over_the_masked_patches_alone(make_encoder: MakeEncoder) -> None:
    mae = _mae(make_encoder())
    images = torch.randn(2, 3, 48, 64)
    loss = mae({"crop": images[:, None]}, torch.Generator().manual_seed(4), PROGRESS)["loss"]
    predicted, masked = mae.predict(images, torch.Generator().manual_seed(4))
    total = 0.0
    for image in range(2):
        for order, patch in enumerate(masked[image].tolist()):
            top, left = patch // 8 * 8, patch % 8 * 8
            truth = images[image, :, top : top + 8, left : left + 8].flatten()
            total += float((predicted[image, order] - truth).square().mean())
    assert loss.item() == pytest.approx(total / masked.numel(), rel=1e-5)


@pytest.mark.parametrize("target", ["pixels", "normalized", "whitened"])
def test_it_learns_and_draws(make_encoder: MakeEncoder, target: str) -> None:
    images = torch.zeros(4, 3, 48, 64)
    images[..., 20:28, :] = 1
    images += 0.05 * torch.randn(images.shape)
    mae = _mae(make_encoder(), target=target)
    mae.prepare(images)
    optimizer = torch.optim.AdamW(mae.parameters(), lr=5e-3)
    losses = []
    for step in range(40):
        loss = mae({"crop": images[:, None]}, torch.Generator().manual_seed(step), PROGRESS)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    drawn = mae.pictures(images, torch.Generator().manual_seed(0))
    assert drawn.shape == (4, 3, 48, 192)
    assert torch.equal(drawn[..., :64], images)
    visible = drawn[..., 64:128] != 0
    assert torch.equal(drawn[..., 128:][visible], images[visible])


def test_an_unknown_target_raises(make_encoder: MakeEncoder) -> None:
    with pytest.raises(ValueError, match="target='hog' must be one of"):
        _mae(make_encoder(), target="hog")


def test_the_last_norm_is_evened_out(make_encoder: MakeEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(initialization, "EVEN_FLOOR", 0.0)
    encoder = make_encoder().eval()
    images = torch.randn(3, 3, 48, 64)
    even_last_norm(encoder.vit, images)
    embeddings = encoder(images).flatten(0, 1)
    torch.testing.assert_close(embeddings.mean(dim=0), torch.zeros(32), atol=1e-3, rtol=0)
    torch.testing.assert_close(embeddings.std(dim=0), torch.ones(32), atol=1e-3, rtol=0)


def test_whitened_embeddings_are_decorrelated(make_encoder: MakeEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(initialization, "NOISE_FLOOR", 0.0)
    vit = make_encoder(image_size=(96, 128)).vit
    # Smooth pictures, as real ones are: a patch's pixels vary together.
    images = torch.nn.functional.interpolate(torch.randn(60, 3, 24, 32), (96, 128), mode="bilinear")
    whiten_patch_embedding(vit, images)
    patches = vit.patch_embed(images).flatten(0, 1)
    torch.testing.assert_close(torch.cov(patches.T), torch.eye(32), atol=0.02, rtol=0)
    assert vit.pos_embed[0, 1:].abs().max().item() == pytest.approx(0.3)


def test_only_fresh_weights_count_as_untrained(make_encoder: MakeEncoder) -> None:
    encoder = make_encoder()
    assert is_untrained(encoder)
    with torch.no_grad():
        encoder.vit.blocks[0].attn.qkv.weight[0, 0] += 1e-3
    assert not is_untrained(encoder)


def test_schedules_by_hand() -> None:
    assert [cosine(step, 3, 1.0, 0.0) for step in range(3)] == pytest.approx([1.0, 0.5, 0.0])
    assert [warmup_linear(step, 2, 0.04, 0.08) for step in range(4)] == pytest.approx([0.04, 0.06, 0.08, 0.08])
    assert [warmup_cosine(step, 6, 2) for step in range(6)] == pytest.approx([0.5, 1.0, 1.0, 0.75, 0.25, 0.0])
    assert warmup_cosine(0, 1, 0) == 1.0
