# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""int8 entries: their error against the formula's bound, and the whole way of a bank that stores them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from anomalib_aoissl.bank.storage import read_bank, write_bank
from anomalib_aoissl.deployment.files.model_file import core
from anomalib_aoissl.encoder.vit import PatchEncoder
from anomalib_aoissl.matching.precision import converted, restored, stored
from anomalib_aoissl.models.export.onnx_graph import onnx_model, write_onnx
from anomalib_aoissl.retrieval.memory.bank_size import entries_of_size
from anomalib_aoissl.retrieval.memory.memory_bank import MemoryBank
from anomalib_aoissl.retrieval.options import VoteOptions
from anomalib_aoissl.retrieval.torch_model import RetrievalModel

SIZE = (16, 24)


def unit(entries: int, dims: int) -> torch.Tensor:
    return functional.normalize(torch.randn(entries, dims), dim=-1)


@pytest.mark.parametrize("dims", [3, 32, 384])
def test_an_entry_comes_back_to_half_a_step_in_each_value(dims: int) -> None:
    entries = unit(50, dims)
    integers = stored(entries, torch.int8)
    assert integers.dtype == torch.int8
    assert (integers.abs().amax(dim=1) == 127).all()
    back = restored(integers)
    torch.testing.assert_close(back.norm(dim=1), torch.ones(50))
    step = entries.abs().amax(dim=1) / 127  # rounding: at most half a step each; bringing the length to 1 adds as much
    assert ((back - entries).norm(dim=1) <= step * dims**0.5).all()
    assert torch.equal(stored(back, torch.int8), integers)  # once stored, nothing more is lost


def test_entries_by_hand_and_floats_that_only_change_their_type() -> None:
    entries = torch.tensor([[0.6, -0.8], [0.0, 1.0]])
    assert stored(entries, torch.int8).tolist() == [[95, -127], [0, 127]]
    assert stored(entries, torch.float16).dtype == torch.float16
    assert torch.equal(restored(entries.half()), entries.half().float())
    assert converted(stored(entries, torch.int8), torch.float32).dtype == torch.float32
    assert torch.equal(converted(entries, torch.int8), stored(entries, torch.int8))
    assert not stored(torch.zeros(1, 2), torch.int8).any()


def make_bank(encoder: PatchEncoder, precision: str, images: range, budget: int | None = None) -> MemoryBank:
    generator = torch.Generator().manual_seed(1)
    embeddings = torch.randn(6, 6, encoder.embed_dim, generator=generator)
    masks = torch.randint(0, 3, (6, *SIZE), generator=generator).to(torch.uint8)
    bank = MemoryBank(encoder.embed_dim, encoder.patch_size, precision=precision, budget=budget)
    bank.class_names = ["background", "wire", "ball"]
    for i in images:
        bank.add(embeddings[i : i + 1], masks[i : i + 1], [f"device{i % 2}"], [f"image{i}"])
    bank.finish()
    return bank


@pytest.fixture
def encoder(tiny_encoder: dict) -> PatchEncoder:
    return PatchEncoder(tiny_encoder, image_size=SIZE, pretrained=False)


def test_novelty_differs_by_no_more_than_the_error_of_the_entries(encoder: PatchEncoder) -> None:
    exact, small = (
        RetrievalModel(encoder, VoteOptions(5), bank=make_bank(encoder, p, range(6))) for p in ("fp32", "int8")
    )
    error = (restored(small.bank.embeddings) - exact.bank.embeddings).norm(dim=1).max()
    assert 0 < float(error) < 0.02
    images = torch.rand(3, 3, *SIZE)
    difference = (small(images).anomaly_map - exact(images).anomaly_map).abs().max()
    assert 0 < float(difference) <= float(error)


def test_int8_goes_through_every_edit_file_and_state(encoder: PatchEncoder, tmp_path: Path) -> None:
    bank, rest = make_bank(encoder, "int8", range(3)), make_bank(encoder, "fp32", range(3, 6))
    whole = make_bank(encoder, "int8", range(6))
    bank.merge(rest)  # of floats
    assert torch.equal(bank.embeddings, whole.embeddings)
    bank.remove(device="device1")
    bank.undo()
    loaded = read_bank(write_bank(bank.content(), tmp_path / "bank.safetensors"))
    assert loaded.entries["embeddings"].dtype == np.int8
    other = MemoryBank(encoder.embed_dim, encoder.patch_size, precision="int8")
    other.load_state_dict(bank.state_dict())
    assert np.array_equal(loaded.entries["embeddings"], whole.embeddings.numpy())
    assert torch.equal(other.embeddings, whole.embeddings)
    assert whole.describe()["megabytes"] == pytest.approx(36 * (32 + 64 + 12) / 1e6)


@pytest.mark.parametrize("pair", [("fp32", "int8"), ("int8", "fp32"), ("int8", "fp16")])
def test_a_state_of_another_precision_is_converted(encoder: PatchEncoder, pair: tuple[str, str]) -> None:
    source, target = (make_bank(encoder, precision, range(6)) for precision in pair)
    dtype = target.embeddings.dtype
    target.load_state_dict(source.state_dict())
    assert target.embeddings.dtype == dtype
    torch.testing.assert_close(restored(target.embeddings), restored(source.embeddings), atol=5e-3, rtol=0)


def test_megabytes_of_int8_entries_and_a_condensed_bank_of_them(encoder: PatchEncoder) -> None:
    assert entries_of_size("1MB", 192, (8, 8), "int8") == 3676  # 192 + 64 + 16 = 272 bytes an entry
    bank = make_bank(encoder, "int8", range(6), budget=9)
    assert bank.embeddings.dtype == torch.int8
    kept = make_bank(encoder, "fp32", range(6), budget=9)  # the same entries: a group's middle is far from the next one
    assert torch.equal(bank.positions, kept.positions)


def test_openvino_gives_what_torch_gives(encoder: PatchEncoder, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    model = RetrievalModel(encoder, VoteOptions(5), bank=make_bank(encoder, "int8", range(6))).eval()

    class Resized(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, images: torch.Tensor) -> object:
            return self.model(functional.interpolate(images, size=SIZE))

    path = write_onnx(onnx_model(Resized(), 3), tmp_path / "model.onnx", {})
    run = core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    images = torch.rand(3, 3, *SIZE)
    expected, result = model(images), run(images.numpy())
    assert (result["pred_mask"] == expected.pred_mask.numpy()).mean() > 0.999
    np.testing.assert_allclose(result["anomaly_map"], expected.anomaly_map, atol=1e-5)
