# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The context of a patch by hand, in banks, in exported models, and in a bank of others."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from editable_models import array_of, check_equal, labelled
from editable_models import make_model as make_editable

from anomalib_aoissl import AOISSLRetrieval
from anomalib_aoissl.encoder import PatchEncoder
from anomalib_aoissl.inference import SegmentationOpenVINOInferencer
from anomalib_aoissl.retrieval.bank_file import BankFileError, encoder_hash, load_bank, save_bank
from anomalib_aoissl.retrieval.context import with_context
from anomalib_aoissl.retrieval.memory_bank import MemoryBank
from anomalib_aoissl.retrieval.torch_model import RetrievalModel

SIZE = (32, 48)


def unit(values: np.ndarray) -> np.ndarray:
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def make_encoder(tiny_encoder: dict) -> PatchEncoder:
    return PatchEncoder(tiny_encoder, image_size=SIZE, pretrained=False)


def by_hand(embeddings: np.ndarray, weight: float) -> np.ndarray:
    """Return what is compared, ``[rows, columns, 2 * D]``, of embeddings ``[rows, columns, D]``."""
    rows, columns, _ = embeddings.shape
    around = [
        [embeddings[max(r - 2, 0) : r + 3, max(c - 2, 0) : c + 3].mean(axis=(0, 1)) for c in range(columns)]
        for r in range(rows)
    ]
    return unit(np.concatenate([embeddings, weight * unit(np.array(around))], axis=-1))


def test_the_context_by_hand() -> None:
    embeddings = unit(np.random.default_rng(0).normal(size=(2, 7, 9, 5)))
    found = with_context(torch.from_numpy(embeddings).flatten(1, 2), (7, 9), 0.6).numpy()
    expected = np.stack([by_hand(image, 0.6) for image in embeddings]).reshape(2, 63, 10)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    own, around = expected[..., :5] @ expected[0, 0, :5], expected[..., 5:] @ expected[0, 0, 5:]
    np.testing.assert_allclose(found @ found[0, 0], own + around, atol=1e-12)
    np.testing.assert_allclose(own[0, 0], 1 / 1.36, atol=1e-12)  # (s + w^2 c) / (1 + w^2)


def test_masks_are_those_of_the_nearest_patch_with_its_context(tiny_encoder: dict) -> None:
    encoder = make_encoder(tiny_encoder)
    model = RetrievalModel(encoder, k=1, context=0.8).eval()
    images = torch.rand(3, 3, *SIZE)
    with torch.no_grad():
        raw = unit(encoder(images).double().numpy()).reshape(3, 4, 6, 32)
    compared = np.stack([by_hand(image, 0.8) for image in raw]).reshape(3, 24, 64)
    np.testing.assert_allclose(model.extract(images), compared, atol=1e-5)
    masks = torch.randint(0, 3, (2, *SIZE)).to(torch.uint8)
    model.fill(images[:2], masks, ["a", "a"], ["x", "y"])
    model.bank.finish()
    model.bank.class_names = ["background", "wire", "ball"]
    similar = compared[2] @ compared[:2].reshape(48, 64).T
    patches = masks.numpy().reshape(2, 4, 8, 6, 8).transpose(0, 1, 3, 2, 4).reshape(48, 8, 8)
    expected = patches[similar.argmax(axis=1)].reshape(4, 6, 8, 8).transpose(0, 2, 1, 3).reshape(SIZE)
    result = model(images[2:])
    np.testing.assert_array_equal(result.pred_mask[0, 0], expected)
    assert float(result.pred_score[0]) == pytest.approx(1 - similar.max(axis=1).min(), abs=1e-5)


def test_the_exported_graph_compares_contexts_and_learns_with_them(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    arguments: dict[str, Any] = {"context": 0.6, "bank_shifts": 2, "query_shifts": 2, "bank_precision": "int8"}
    model = make_editable(2, seed=1, **arguments)
    inferencer = SegmentationOpenVINOInferencer(model.to_openvino(tmp_path))
    check_equal(inferencer, model)
    pictures, masks = labelled(1, seed=3)
    before = float(inferencer.predict(array_of(pictures[0])).score)
    inferencer.adapt(array_of(pictures[0]), masks[0].numpy(), device="new", name="first")
    model.add(pictures, masks, ["new"], ["first"])
    check_equal(inferencer, model)
    assert float(inferencer.predict(array_of(pictures[0])).score) < before / 2


def test_a_bank_of_another_context_is_refused(tiny_encoder: dict, tmp_path: Path) -> None:
    encoder = make_encoder(tiny_encoder)
    models = [RetrievalModel(encoder, context=context) for context in (0.0, 0.5, 0.6)]
    hashes = [encoder_hash(encoder, model.embedding_options) for model in models]
    assert len(set(hashes)) == 3
    assert hashes[0] == encoder_hash(encoder)
    models[1].fill(torch.rand(1, 3, *SIZE), torch.zeros(1, *SIZE, dtype=torch.uint8), ["a"], ["x"])
    bank = models[1].bank
    bank.finish()
    bank.class_names, bank.encoder_hash = ["background"], hashes[1]
    path = save_bank(bank.content(), tmp_path / "bank.safetensors")
    for other in (hashes[0], hashes[2]):
        with pytest.raises(BankFileError, match="with the same retrieval, position_directions and context"):
            load_bank(path, other)
    with pytest.raises(ValueError, match=r"embeddings have 64 dimensions, this encoder's have 32 .*MemoryBank\(32"):
        RetrievalModel(encoder, bank=bank)
    with pytest.raises(ValueError, match=r"have 32 dimensions, this encoder's have 64"):
        RetrievalModel(encoder, context=0.5, bank=MemoryBank(32, (8, 8)))


@pytest.mark.parametrize("context", [-0.1, float("inf"), float("nan"), True])
def test_what_is_no_weight_is_refused(tiny_encoder: dict, context: Any) -> None:
    with pytest.raises(ValueError, match=r"context=.* must be a number of at least 0"):
        RetrievalModel(make_encoder(tiny_encoder), context=context)


def test_the_default_is_a_context_of_patches_and_none_of_whole_images(tiny_encoder: dict) -> None:
    def make(**arguments: Any) -> AOISSLRetrieval:
        return AOISSLRetrieval(encoder=tiny_encoder, pretrained=False, image_size=SIZE, **arguments)

    assert make().model.context == 0.6
    assert make().model.bank.embeddings.shape[1] == 64
    assert make(context=0).model.bank.embeddings.shape[1] == 32
    assert make(retrieval="images").model.context == 0


def test_a_checkpoint_from_before_there_was_a_context_has_none() -> None:
    old = make_editable(1, seed=1, context=0)
    checkpoint: dict[str, Any] = {"hyper_parameters": dict(old.hparams), "state_dict": old.state_dict()}
    old.on_save_checkpoint(checkpoint)
    del checkpoint["hyper_parameters"]["context"]
    model = AOISSLRetrieval(encoder=old.hparams.encoder, pretrained=False, image_size=SIZE)
    model.on_load_checkpoint(checkpoint)
    model.load_state_dict(checkpoint["state_dict"])
    pictures, _ = labelled(2, seed=9)
    assert torch.equal(model.eval()(pictures).pred_mask, old(pictures).pred_mask)
