# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The shipped encoder: timm loads its weights by name, offline, at any size, and they are small."""

from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file
from timm.models._registry import _model_pretrained_cfgs

from anomalib_aoissl.encoder.architecture import DEFAULT_ENCODER, SHIPPED_WEIGHTS
from anomalib_aoissl.encoder.vit import PatchEncoder


def test_timm_loads_the_file_and_it_is_small() -> None:
    assert SHIPPED_WEIGHTS.stat().st_size < 12e6
    stored = load_file(str(SHIPPED_WEIGHTS))
    loaded = timm.create_model(DEFAULT_ENCODER, pretrained=True).state_dict()
    assert set(stored) == set(loaded)
    for name, tensor in stored.items():
        assert tensor.dtype == torch.float16
        assert torch.equal(tensor.float(), loaded[name])


def test_another_size_keeps_all_but_the_positions() -> None:
    stored = load_file(str(SHIPPED_WEIGHTS))
    encoder = PatchEncoder(image_size=(64, 96))
    assert encoder.grid_size == (8, 12)
    for name, tensor in encoder.vit.state_dict().items():
        if name != "pos_embed":
            assert torch.equal(tensor, stored[name].float())


def test_a_missing_file_is_an_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    moved = replace(timm.models.get_pretrained_cfg(DEFAULT_ENCODER), file=str(tmp_path / "missing.safetensors"))
    monkeypatch.setitem(_model_pretrained_cfgs, DEFAULT_ENCODER, moved)
    with pytest.raises(ValueError, match=r"its weights cannot be loaded \(FileNotFoundError\).*install.*again"):
        PatchEncoder(image_size=(64, 96))


def test_it_is_trained() -> None:
    """Its embeddings of noise are spread over the dims; those of random weights lie along few."""

    def effective_rank(pretrained: bool) -> float:
        encoder = PatchEncoder(image_size=(256, 256), pretrained=pretrained).eval()
        images = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
        values = torch.linalg.svdvals(encoder(images)[0].detach())
        shares = values / values.sum()
        return float(torch.exp(-(shares * shares.log()).sum()))

    assert effective_rank(pretrained=True) > 1.2 * effective_rank(pretrained=False)
