# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Retrieval with the default encoder, and beside what was made with the transformer that was the default in 0.2.0."""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from anomalib.engine import Engine

from anomalib_aoissl import AOISSLRetrieval, SegmentationFolder
from anomalib_aoissl.bank.storage import BankFileError, write_bank
from anomalib_aoissl.encoder.architecture import DEFAULT_ENCODER, SHIPPED_TRANSFORMER

pytestmark = pytest.mark.usefixtures("short_fits")

QUIET = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}


class Run(NamedTuple):
    """A fitted model and its checkpoint."""

    model: AOISSLRetrieval
    checkpoint: Path


def trained(folder: Path, drawn_folder: Path, **arguments: Any) -> Run:
    model = AOISSLRetrieval(image_size=(64, 96), visualizer=False, **arguments)
    data = SegmentationFolder(drawn_folder, devices=["soic8_gold"], num_workers=0, test_ratio=0.25, val_ratio=0.25)
    engine = Engine(default_root_dir=folder, **QUIET)
    engine.fit(model, datamodule=data)
    return Run(model.eval(), Path(engine.best_model_path))


@pytest.fixture(scope="module")
def default(short_fits: None, drawn_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(tmp_path_factory.mktemp("default"), drawn_folder)


@pytest.fixture(scope="module")
def old(short_fits: None, drawn_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(tmp_path_factory.mktemp("old"), drawn_folder, encoder=SHIPPED_TRANSFORMER)


def predictions(model: AOISSLRetrieval) -> torch.Tensor:
    images = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    return model(images).anomaly_map


def test_the_default_reads_patches_and_finer_tokens(default: Run) -> None:
    model = default.model.model
    assert model.bank.embeddings.shape[1] == 4 * 24 + 32 + 96 + 1
    assert model.bank.patch_size == (8, 8)
    assert model.head.directions.shape == (152, 128)
    read = model.read(torch.zeros(1, 3, 64, 96))
    assert read.tokens.shape == (1, 152, 16, 24)
    torch.testing.assert_close(read.embeddings.norm(dim=-1), torch.ones(1, 96))


@pytest.mark.parametrize(("name", "architecture"), [("default", DEFAULT_ENCODER), ("old", SHIPPED_TRANSFORMER)])
def test_a_checkpoint_brings_its_encoder_along(name: str, architecture: str, request: pytest.FixtureRequest) -> None:
    run: Run = request.getfixturevalue(name)
    saved = torch.load(run.checkpoint, weights_only=True)
    assert saved["hyper_parameters"]["encoder"]["architecture"] == architecture
    loaded = AOISSLRetrieval.load_from_checkpoint(run.checkpoint).eval()
    assert torch.equal(predictions(loaded), predictions(run.model))
    adopted = AOISSLRetrieval(visualizer=False)  # as the command line makes it before it reads the checkpoint
    adopted.on_load_checkpoint(saved)
    adopted.load_state_dict(saved["state_dict"])
    assert torch.equal(predictions(adopted.eval()), predictions(run.model))


def test_another_encoder_beside_a_checkpoint_is_an_error(old: Run) -> None:
    saved = torch.load(old.checkpoint, weights_only=True)
    with pytest.raises(ValueError, match=r"saved with encoder\.architecture=aoissl_vit_tiny_patch8, but .* aoissl_mob"):
        AOISSLRetrieval(encoder=DEFAULT_ENCODER).on_load_checkpoint(saved)


@pytest.mark.parametrize("light", ["planes", "standardised"])
def test_the_hash_of_the_transformer_is_that_of_version_0_2_0_where_its_light_is(old: Run, light: str) -> None:
    """Blocks, norm and patch; constants; light; weights: so banks of that version are known again."""
    pre_processor: Any = old.model.pre_processor
    before, pre_processor.light = pre_processor.light, light
    found = old.model.seen_by()
    pre_processor.light = before
    encoder = old.model.model.encoder
    digest = hashlib.sha256(json.dumps([[3], True, [8, 8]]).encode())
    digest.update(json.dumps([[0.5] * 3, [0.5] * 3]).encode())
    digest.update(json.dumps({"light": light}).encode())
    for name, tensor in sorted(encoder.vit.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode() + tensor.float().numpy().tobytes())
    assert found == digest.hexdigest()
    assert (old.model.model.bank.encoder_hash == found) == (light == before)


def test_a_bank_of_the_transformer_is_extended_with_it_alone(old: Run, drawn_folder: Path, tmp_path: Path) -> None:
    path = write_bank(old.model.model.bank.content(), tmp_path / "old.safetensors")
    with pytest.raises(BankFileError, match=r"Train again .*Up to 0\.2\.0 .* was aoissl_vit_tiny_patch8"):
        trained(tmp_path, drawn_folder, bank={"extends": path})
    arguments = {"encoder": SHIPPED_TRANSFORMER, "bank": {"extends": path, "size": None}, "head": None}
    extended = trained(tmp_path, drawn_folder, **arguments).model.model.bank
    assert len(extended) > len(old.model.model.bank)
    assert extended.encoder_hash == old.model.model.bank.encoder_hash
