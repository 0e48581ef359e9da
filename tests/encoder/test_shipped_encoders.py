# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The shipped encoders: timm loads their weights by name, offline, at any size; they are small and trained."""

import hashlib
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file
from timm.models._registry import _model_pretrained_cfgs
from torchvision.models import mobilenet_v2

from anomalib_aoissl.encoder import create_encoder
from anomalib_aoissl.encoder.architecture import DEFAULT_ENCODER, SHIPPED, SHIPPED_TRANSFORMER

ROOT = Path(__file__).resolve().parents[2]
NAMES = pytest.mark.parametrize("name", [DEFAULT_ENCODER, SHIPPED_TRANSFORMER])


@NAMES
def test_timm_loads_the_file_and_it_is_small(name: str) -> None:
    assert SHIPPED[name].stat().st_size < 6e6
    stored = load_file(SHIPPED[name])
    loaded = timm.create_model(name, pretrained=True, num_classes=0).state_dict()
    assert set(stored) == set(loaded)
    for key, tensor in stored.items():
        assert tensor.dtype == torch.float16 or tensor.dim() < 2 or name == SHIPPED_TRANSFORMER
        assert torch.equal(tensor.float(), loaded[key].float())


@NAMES
def test_the_model_card_names_the_file_by_its_sum(name: str) -> None:
    card = (ROOT / "docs" / "model-card.md").read_text(encoding="utf-8")
    assert f"`{name}`" in card
    assert hashlib.sha256(SHIPPED[name].read_bytes()).hexdigest() in card


def test_another_size_keeps_all_but_the_positions() -> None:
    stored = load_file(SHIPPED[SHIPPED_TRANSFORMER])
    encoder = create_encoder(SHIPPED_TRANSFORMER, image_size=(64, 96))
    assert encoder.grid_size == (8, 12)
    for name, tensor in encoder.network.state_dict().items():
        if name != "pos_embed":
            assert torch.equal(tensor, stored[name].float())


@NAMES
def test_a_missing_file_is_an_error_that_says_what_to_do(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    moved = replace(timm.models.get_pretrained_cfg(name), file=str(tmp_path / "missing.safetensors"))
    monkeypatch.setitem(_model_pretrained_cfgs, name, moved)
    with pytest.raises(ValueError, match=r"its weights cannot be loaded \(FileNotFoundError\).*install.*again"):
        create_encoder(name, image_size=(64, 96))


def test_the_transformer_is_trained() -> None:
    """Its embeddings of noise are spread over the dims; those of random weights lie along few."""

    def effective_rank(pretrained: bool) -> float:
        encoder = create_encoder(SHIPPED_TRANSFORMER, image_size=(256, 256), pretrained=pretrained).eval()
        images = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
        values = torch.linalg.svdvals(encoder(images)[0].detach())
        shares = values / values.sum()
        return float(torch.exp(-(shares * shares.log()).sum()))

    assert effective_rank(pretrained=True) > 1.2 * effective_rank(pretrained=False)


def test_the_convolutions_are_trained() -> None:
    """Each batch norm knows the variances of pictures; of random weights they are 1."""
    state = create_encoder(DEFAULT_ENCODER, image_size=(8, 8)).network.state_dict()
    variances = [values for name, values in state.items() if name.endswith(".running_var")]
    assert len(variances) > 30
    assert all((values - 1).abs().min() > 1e-3 for values in variances)


def test_the_converter_gives_each_layer_of_torchvision_timms_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "mobilenet_v2.pth", tmp_path / "converted.safetensors"
    theirs = mobilenet_v2().eval()
    torch.save(theirs.state_dict(), source)
    monkeypatch.setattr(sys, "argv", ["convert", str(source), str(target)])
    runpy.run_path(str(ROOT / "examples" / "convert_torchvision_encoder.py"), run_name="__main__")
    ours = timm.create_model("mobilenetv2_100", num_classes=0, global_pool="").eval()
    ours.load_state_dict(load_file(target))
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        # The file holds half precision, and random weights make small numbers.
        torch.testing.assert_close(ours(images), theirs.features(images), atol=1e-3, rtol=2e-2)
