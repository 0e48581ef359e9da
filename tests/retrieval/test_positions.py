# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Directions of position: found where they were put, taken out, and a bank that knows of them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from anomalib_aoissl.encoder import PatchEncoder
from anomalib_aoissl.retrieval.bank_file import BankFileError, encoder_hash, load_bank, save_bank
from anomalib_aoissl.retrieval.positions import position_basis, without_directions
from anomalib_aoissl.retrieval.torch_model import RetrievalModel

SIZE = (32, 48)


def make_encoder(tiny_encoder: dict) -> PatchEncoder:
    return PatchEncoder(tiny_encoder, image_size=SIZE, pretrained=False)


class _Ramp(torch.nn.Module):
    """Embeddings of fixed content and, in two known directions, the patch's row and column."""

    embed_dim, in_channels, image_size = 12, 3, SIZE

    def __init__(self) -> None:
        super().__init__()
        self.directions = torch.nn.Parameter(torch.linalg.qr(torch.randn(12, 2))[0].T)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        places = torch.stack(torch.meshgrid(torch.arange(4.0), torch.arange(6.0), indexing="ij"), -1).reshape(-1, 2)
        content = torch.nn.functional.avg_pool2d(images, 8).mean(dim=1).flatten(1)[..., None]  # [B, 24, 1]
        return 5.0 + 0.01 * content * torch.arange(12.0) + places @ self.directions


def test_the_directions_of_rows_and_columns_are_found() -> None:
    encoder = _Ramp()
    basis = position_basis(encoder, 2)
    torch.testing.assert_close(basis @ basis.T, torch.eye(2), atol=1e-5, rtol=0)
    found = basis @ encoder.directions.detach().T  # the same plane: an orthogonal matrix
    torch.testing.assert_close(found @ found.T, torch.eye(2), atol=1e-3, rtol=0)
    with torch.no_grad():
        left = without_directions(encoder(torch.zeros(1, 3, *SIZE))[0], basis)
    assert float(left.std(dim=0).max()) < 0.01  # every place looks alike now
    assert float(left.mean()) > 4  # what all places share has stayed


def test_projection_by_numpy(tiny_encoder: dict) -> None:
    model = RetrievalModel(make_encoder(tiny_encoder), position_directions=3)
    model.find_positions()
    images = torch.rand(2, 3, *SIZE)
    with torch.no_grad():
        raw = model.encoder(images).numpy().astype(float)
    basis = model.position_basis.numpy().astype(float)
    expected = raw @ (np.eye(32) - basis.T @ basis)
    expected /= np.linalg.norm(expected, axis=-1, keepdims=True)
    np.testing.assert_allclose(model.extract(images), expected, atol=1e-5)
    again = RetrievalModel(make_encoder(tiny_encoder), position_directions=3)
    again.find_positions()
    assert torch.equal(again.position_basis, model.position_basis)


def test_filling_finds_the_directions_and_the_state_dict_carries_them(tiny_encoder: dict) -> None:
    model = RetrievalModel(make_encoder(tiny_encoder), position_directions=3)
    assert not bool(model.position_basis.any())
    model.fill(torch.rand(1, 3, *SIZE), torch.zeros(1, *SIZE, dtype=torch.uint8), ["a"], ["x"])
    assert torch.linalg.matrix_rank(model.position_basis) == 3
    assert "position_basis" in model.state_dict()
    assert "position_basis" not in RetrievalModel(make_encoder(tiny_encoder)).state_dict()


def test_a_bank_without_positions_is_not_searched_with_them(tiny_encoder: dict, tmp_path: Path) -> None:
    plain = RetrievalModel(make_encoder(tiny_encoder))
    model = RetrievalModel(make_encoder(tiny_encoder), position_directions=3)
    whole = RetrievalModel(make_encoder(tiny_encoder), retrieval="images")
    hashes = [encoder_hash(m.encoder, m.embedding_options) for m in (plain, model, whole)]
    assert len(set(hashes)) == 3
    assert hashes[0] == encoder_hash(plain.encoder)
    model.fill(torch.rand(1, 3, *SIZE), torch.zeros(1, *SIZE, dtype=torch.uint8), ["a"], ["x"])
    model.bank.finish()
    model.bank.class_names, model.bank.encoder_hash = ["background"], hashes[1]
    path = save_bank(model.bank.content(), tmp_path / "bank.safetensors")
    assert len(load_bank(path, hashes[1]).rows[0]) == 24
    for other in (hashes[0], hashes[2]):
        with pytest.raises(BankFileError, match="with the same retrieval, position_directions and context"):
            load_bank(path, other)
    plain.bank.encoder_hash = hashes[0]
    with pytest.raises(ValueError, match="Use the encoder that the bank was filled with"):
        plain.bank.merge(model.bank)


def test_numbers_of_directions_that_are_refused(tiny_encoder: dict) -> None:
    for number in (-1, 32):
        with pytest.raises(ValueError, match=rf"position_directions={number} must be 0 .* less than the 32 dimensions"):
            RetrievalModel(make_encoder(tiny_encoder), position_directions=number)
