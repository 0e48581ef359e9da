# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The artefact as the backbone of anomalib's own models."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from anomalib.models import AnomalyDINO, Patchcore

from anomalib_aoissl.encoder.vit import PatchEncoder
from anomalib_aoissl.pretraining.training.artefact import load_weights, save_encoder

MakeEncoder = Callable[..., PatchEncoder]


@pytest.mark.parametrize("size", [(48, 64), (64, 64)])
def test_patchcore_takes_it_as_backbone(make_encoder: MakeEncoder, tmp_path: Path, size: tuple[int, int]) -> None:
    encoder = make_encoder(depth=2, reg_tokens=1)
    folder = save_encoder(encoder, tmp_path / "vit_ours", {})
    model = Patchcore(backbone=f"local-dir:{folder}", layers=["blocks.0", "blocks.1"], num_neighbors=1).model
    images = torch.randn(2, 3, *size)
    features = model.feature_extractor(images)
    assert [tuple(f.shape) for f in features.values()] == [(2, 32, size[0] // 8, size[1] // 8)] * 2
    if size == (48, 64):
        expected = encoder.eval()(images).transpose(1, 2).unflatten(2, (6, 8))
        torch.testing.assert_close(features["blocks.1"], expected, atol=1e-5, rtol=1e-4)
    model.train()
    model(images)
    model.subsample_embedding(0.5)
    assert model.eval()(images).anomaly_map.shape == (2, 1, *size)


def test_anomaly_dino_takes_an_encoder_of_its_depth(make_encoder: MakeEncoder, tmp_path: Path) -> None:
    # It reads the number of blocks from the name: "dino" and "small" mean 12.
    folder = save_encoder(make_encoder(depth=12), tmp_path / "dino_vit_small", {})
    model = AnomalyDINO(encoder_name=f"local-dir:{folder}", num_neighbours=1).model
    images = torch.randn(2, 3, 48, 64)
    model.train()
    model(images)
    model.fit()
    assert model.eval()(images).anomaly_map.shape == (2, 1, 48, 64)


def test_an_older_folder_is_replaced_and_nothing_is_left_over(make_encoder: MakeEncoder, tmp_path: Path) -> None:
    folder = save_encoder(make_encoder(), tmp_path / "a" / "encoder", {"run": 1})
    (folder / "pictures").mkdir()
    (folder / "pictures" / "step_0000010.png").write_text("")
    save_encoder(make_encoder(), folder, {"run": 2})
    assert '"run": 2' in (folder / "pretraining.json").read_text()
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors", "pretraining.json"]
    assert [p.name for p in folder.parent.iterdir()] == ["encoder"]


def test_a_failed_write_leaves_the_older_folder(
    make_encoder: MakeEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_encoder(make_encoder(), tmp_path / "encoder", {"run": 1})
    with pytest.raises(TypeError, match="not JSON serializable"):
        save_encoder(make_encoder(), folder, {"run": object()})
    assert '"run": 1' in (folder / "pretraining.json").read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["encoder"]


def test_a_damaged_result_of_pretraining_is_named(tiny_encoder: dict, tmp_path: Path) -> None:
    encoder = PatchEncoder(tiny_encoder, image_size=(64, 96), pretrained=False)
    encoder.vit.norm.weight.data[0] = math.nan
    folder = save_encoder(encoder, tmp_path / "mae-1", {"summary": ""})
    with pytest.raises(ValueError, match=r"mae-1: the pretrained encoder cannot be read .*norm\.weight.* not finite"):
        load_weights(encoder.vit, folder)
