# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Edits of models with a pixel head: the head follows the bank's labelled pixels, in torch and on the line alike."""

import copy
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from editable_models import CLASSES, array_of, bank_file, check_equal, labelled, make_model

from anomalib_aoissl import AOISSLRetrieval
from anomalib_aoissl.deployment.graph.bank import bank_of, head_of, part_model, with_bank
from anomalib_aoissl.deployment.inferencer import SegmentationOpenVINOInferencer
from anomalib_aoissl.pixel_head.learning import stages
from anomalib_aoissl.pixel_head.learning.sample import PixelSample

openvino = pytest.importorskip("openvino")


def answers(inferencer: SegmentationOpenVINOInferencer) -> tuple[np.ndarray, np.ndarray]:
    """Return masks and novelty of two images."""
    result = inferencer._compiled(labelled(2, seed=99)[0].numpy())
    return result["pred_mask"], result["anomaly_map"]


def same(first: PixelSample | None, second: PixelSample | None) -> bool:
    """Return whether two samples hold the same pixels."""
    assert first is not None
    assert second is not None
    return all(
        np.array_equal(array, second.arrays[name], equal_nan=name == "novelty") for name, array in first.arrays.items()
    )


def accuracy(inferencer: SegmentationOpenVINOInferencer, picture: torch.Tensor, mask: torch.Tensor) -> float:
    """Return the share of the labelled pixels that get their class."""
    counted = mask.numpy() != 255
    return float((inferencer.predict(array_of(picture)).class_map == mask.numpy())[counted].mean())


def head_answer(model: AOISSLRetrieval, pictures: torch.Tensor) -> torch.Tensor:
    """Return the class probabilities of the pixel head alone."""
    seen = model.pre_processor(pictures)
    return model.model.head_probabilities(seen, model.model.read(seen).tokens)


def exported_head_answer(inferencer: SegmentationOpenVINOInferencer) -> np.ndarray:
    """Return the class probabilities of the pixel head alone of two images."""
    # Marks of full precision are written into the file when it is saved, so that a graph in memory may lack them.
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    part = openvino.compile_model(part_model(inferencer._model, ["class_probabilities"]), "CPU", exact)
    return part(labelled(2, seed=99)[0].numpy())[0]


@pytest.fixture
def trained(head_model: AOISSLRetrieval) -> AOISSLRetrieval:
    """Return a model with a pixel head that a test may change."""
    return copy.deepcopy(head_model)


# --- torch ------------------------------------------------------------------------------------------------------------


def test_head_and_vote_are_multiplied(trained: AOISSLRetrieval) -> None:
    """The vote's probabilities are those of the model without its head, which other tests compare with brute force."""
    pictures = labelled(2, seed=99)[0]
    seen = trained.pre_processor(pictures)
    head = head_answer(trained, pictures).double().numpy()
    found, answer = trained.model.maps(seen).numpy(), trained.model.answer(seen)
    trained.model.head = None
    vote = trained.model.maps(seen).double().numpy()
    expected = head * (vote[:, :3] + 0.3)
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found[:, :3], expected, atol=1e-5)
    np.testing.assert_allclose(found[:, 3:], vote[:, 3:], atol=1e-6)
    assert (answer[0].pred_mask[:, 0].numpy() == expected.argmax(axis=1)).mean() > 0.999
    np.testing.assert_allclose(answer[1][:, 0].numpy(), expected.max(axis=1), atol=1e-5)
    assert (expected.argmax(axis=1) != head.argmax(axis=1)).any()
    assert (expected.argmax(axis=1) != vote[:, :3].argmax(axis=1)).any()


def test_an_image_is_learnt_removed_and_brought_back(trained: AOISSLRetrieval) -> None:
    before, head = trained.model.bank.pixels, trained.model.head
    assert before is not None
    weights = head.layers("first")[0].copy()
    pictures, masks = labelled(1, seed=3)
    trained.add(pictures, masks, ["new"], ["first"])
    pixels = trained.model.bank.pixels
    assert same(pixels.chosen(pixels.image_ids != trained.model.bank.image_names.index("first")), before)
    assert len(pixels) > len(before)
    assert trained.model.bank.device_names[pixels.device_ids[-1]] == "new"
    assert not np.array_equal(head.layers("first")[0], weights)
    trained.remove(image="first")
    assert same(trained.model.bank.pixels, before)
    trained.undo()
    assert same(trained.model.bank.pixels, pixels)


def test_an_edit_without_a_fit_changes_the_vote_and_novelty_alone(trained: AOISSLRetrieval) -> None:
    pictures = labelled(2, seed=99)[0]
    before, head = trained(pictures), head_answer(trained, pictures)
    trained.remove(image="1-0", refit=False)
    after = trained(pictures)
    assert torch.equal(head_answer(trained, pictures), head)
    assert not torch.equal(after.pred_mask, before.pred_mask)
    assert (after.anomaly_map > before.anomaly_map + 1e-4).any()
    assert (after.anomaly_map >= before.anomaly_map - 1e-6).all()
    trained.remove(image="1-1")
    assert not torch.equal(head_answer(trained, pictures), head)


def test_a_bank_of_another_model_changes_novelty_alone(
    trained: AOISSLRetrieval, caplog: pytest.LogCaptureFixture
) -> None:
    before = trained.model.bank.pixels
    with caplog.at_level(logging.WARNING):
        trained.merge(make_model(1, seed=7).model.bank)
    assert "filled by another model, so that its" in caplog.text
    assert "old" in trained.describe()["entries_of_device"]
    assert same(trained.model.bank.pixels, before)


def test_labelled_pixels_are_in_bank_files_and_in_what_describes_them(trained: AOISSLRetrieval, tmp_path: Path) -> None:
    path, pixels = bank_file(trained, tmp_path), trained.model.bank.pixels
    facts = trained.describe()
    assert facts["pixels"] == len(pixels) > 0
    assert facts["megabytes_of_pixels"] == pytest.approx(pixels.megabytes)
    trained.model.bank.clear()
    assert trained.model.bank.pixels is None
    trained.merge(path)
    assert same(trained.model.bank.pixels, pixels)


def test_a_state_brings_the_head_and_its_pixels(trained: AOISSLRetrieval, tmp_path: Path) -> None:
    torch.save(trained.state_dict(), tmp_path / "state.pt")
    other = make_model(1, seed=5)
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    pictures = labelled(2, seed=99)[0]
    assert torch.equal(other(pictures).pred_mask, trained(pictures).pred_mask)
    assert same(other.model.bank.pixels, trained.model.bank.pixels)
    assert other.model.bank.pixels.basis == trained.model.bank.pixels.basis


def test_one_class_alone_makes_no_head() -> None:
    model = make_model(1, seed=1)
    model.model.bank.clear()
    model.model.head.clear()
    pictures, masks = labelled(1, seed=1)
    model.add(pictures, torch.where(masks == 255, masks, torch.ones_like(masks)), ["a"], ["x"])
    assert not model.model.has_fitted_head
    assert (model(pictures).pred_mask == 1).all()
    model.add(*labelled(1, seed=2), ["a"], ["y"])
    assert model.model.has_fitted_head


# --- on the line ------------------------------------------------------------------------------------------------------


def test_the_export_answers_as_torch_and_holds_the_head(
    head_model: AOISSLRetrieval, head_inferencer: SegmentationOpenVINOInferencer
) -> None:
    check_equal(head_inferencer, head_model)
    assert same(bank_of(head_inferencer._model).pixels, head_model.model.bank.pixels)
    head, trained = head_of(head_inferencer._model), head_model.model.head
    assert head is not None
    for name in ("first", "second"):
        for ours, theirs in zip(getattr(head.stages, name), trained.layers(name), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert head.basis == trained.basis()


@pytest.mark.parametrize("images", [1, 4])
def test_with_and_without_autocontext(
    head_inferencer: SegmentationOpenVINOInferencer, trained: AOISSLRetrieval, images: int
) -> None:
    assert trained.model.head.has_autocontext
    pictures = labelled(images, seed=images)[0]
    with_context = exported_head_answer(head_inferencer)
    found = head_inferencer._compiled(pictures.numpy())["pred_mask"]
    assert (found == trained(pictures).pred_mask.numpy()).mean() >= 0.999
    trained.model.head.set_layers("second", ())
    head_inferencer._use(with_bank(head_inferencer._model, trained.model.bank.content(), trained._head()))
    assert not head_of(head_inferencer._model).stages.second
    check_equal(head_inferencer, trained)
    assert not np.allclose(exported_head_answer(head_inferencer), with_context, atol=0.01)


def test_removing_fits_the_head_as_torch_does(
    head_inferencer: SegmentationOpenVINOInferencer, trained: AOISSLRetrieval, tmp_path: Path
) -> None:
    before = answers(head_inferencer)[0]
    assert head_inferencer.remove(image="1-1") == trained.remove(image="1-1")
    check_equal(head_inferencer, trained)
    assert same(bank_of(head_inferencer._model).pixels, trained.model.bank.pixels)
    assert (answers(head_inferencer)[0] != before).any()
    again = SegmentationOpenVINOInferencer(head_inferencer.save(tmp_path / "saved.xml"))
    check_equal(again, trained)
    again.remove(image="1-2")
    trained.remove(image="1-2")
    check_equal(again, trained)


def test_a_mask_that_torch_would_not_give_is_learnt(
    head_inferencer: SegmentationOpenVINOInferencer, trained: AOISSLRetrieval, tmp_path: Path
) -> None:
    pictures, masks = labelled(1, seed=3)
    masks = torch.where(masks == 255, masks, 2 - masks)  # the opposite of what was learnt
    before, pixels = accuracy(head_inferencer, pictures[0], masks[0]), bank_of(head_inferencer._model).pixels
    added = head_inferencer.adapt(array_of(pictures[0]), masks[0].numpy(), device="new", name="first")
    assert added == 24
    learnt = bank_of(head_inferencer._model)
    new = learnt.pixels.image_ids == learnt.image_names.index("first")
    assert same(learnt.pixels.chosen(~new), pixels)
    assert set(learnt.pixels.labels[new]) == {0, 1, 2}
    assert {learnt.device_names[index] for index in learnt.pixels.device_ids[new]} == {"new"}
    assert accuracy(head_inferencer, pictures[0], masks[0]) > before + 0.05
    assert head_inferencer.predict(array_of(pictures[0])).score < 1e-5

    again = SegmentationOpenVINOInferencer(head_inferencer.save(tmp_path / "saved.xml"))
    for ours, theirs in zip(answers(again), answers(head_inferencer), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    again.remove(device="new")
    assert same(bank_of(again._model).pixels, pixels)
    assert accuracy(again, pictures[0], masks[0]) < accuracy(head_inferencer, pictures[0], masks[0])


def test_adapting_without_a_fit_changes_the_vote_and_novelty_alone(
    head_inferencer: SegmentationOpenVINOInferencer,
) -> None:
    pictures, masks = labelled(1, seed=3)
    before, pixels = answers(head_inferencer), bank_of(head_inferencer._model).pixels
    head = exported_head_answer(head_inferencer)
    assert head_inferencer.predict(array_of(pictures[0])).score > 0.01
    head_inferencer.adapt(array_of(pictures[0]), masks[0].numpy(), device="new", name="first", refit=False)
    np.testing.assert_array_equal(exported_head_answer(head_inferencer), head)
    for ours, theirs in zip(answers(head_inferencer), before, strict=True):
        assert not np.array_equal(ours, theirs)
    assert head_inferencer.predict(array_of(pictures[0])).score < 1e-5
    assert same(bank_of(head_inferencer._model).pixels, pixels)
    head_inferencer.remove(device="new", refit=False)
    for ours, theirs in zip(answers(head_inferencer), before, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_a_new_class_is_learnt_and_stays_in_what_is_saved(
    head_inferencer: SegmentationOpenVINOInferencer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "REFIT_STEPS", 400)  # as few as show what is learnt
    pictures, masks = labelled(1, seed=3)
    masks[:, 20:] = 3
    pictures[:, :, 20:] = (torch.arange(20) % 4 < 2).float()[:, None]  # stripes, which no other class has
    table = np.full(256, 255, np.uint8)
    table[:4] = [0, 3, 2, 1]
    shuffled = ["background", "crack", "ball", "wire"]  # mapped by name
    mask = table[masks[0].numpy()]
    before = exported_head_answer(head_inferencer).argmax(axis=1)
    head_inferencer.adapt(array_of(pictures[0]), mask, device="new", name="known", class_names=shuffled, refit=False)
    assert head_inferencer.class_names == (*CLASSES, "crack")
    # the unlikely class takes a little of each pixel, which the second network sees
    assert (exported_head_answer(head_inferencer).argmax(axis=1) == before).mean() > 0.99
    head_inferencer.adapt(array_of(pictures[0]), mask, device="new", name="first", class_names=shuffled)
    assert (head_inferencer.predict(array_of(pictures[0])).class_map[22:] == 3).mean() > 0.9
    again = SegmentationOpenVINOInferencer(head_inferencer.save(tmp_path / "saved.xml"))
    assert again.class_names == (*CLASSES, "crack")
    np.testing.assert_array_equal(answers(again)[0], answers(head_inferencer)[0])
    head = head_of(again._model)
    assert head is not None
    assert head.stages.classes == 4
    more = labelled(1, seed=4)
    again.adapt(array_of(more[0][0]), more[1][0].numpy(), device="new", name="second")
    assert again.remove(image="known") > 0
    assert (again.predict(array_of(pictures[0])).class_map[22:] == 3).mean() > 0.9
    again.remove(device="new")
    assert 3 not in bank_of(again._model).pixels.labels
    assert (answers(again)[0] < 3).mean() > 0.99


def test_bank_files_bring_pixels_of_the_same_head_only(
    head_inferencer: SegmentationOpenVINOInferencer,
    head_model: AOISSLRetrieval,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    before, pixels = answers(head_inferencer), bank_of(head_inferencer._model).pixels
    head = exported_head_answer(head_inferencer)
    path = head_inferencer.save_bank(tmp_path / "own.safetensors")
    head_inferencer.replace_bank(path, refit=False)
    for ours, theirs in zip(answers(head_inferencer), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert same(bank_of(head_inferencer._model).pixels, pixels)
    with caplog.at_level(logging.WARNING):
        head_inferencer.extend_bank(bank_file(make_model(1, seed=7), tmp_path), refit=False)
    assert "filled by another model" in caplog.text
    np.testing.assert_array_equal(exported_head_answer(head_inferencer), head)
    assert same(bank_of(head_inferencer._model).pixels, pixels)
    caplog.clear()
    for other in (None, "pixel"):
        head_inferencer.replace_bank(bank_file(make_model(1, seed=7, head=other), tmp_path))
        assert "not fitted again" in caplog.text
        np.testing.assert_array_equal(exported_head_answer(head_inferencer), head)
        again = SegmentationOpenVINOInferencer(head_inferencer.save(tmp_path / "saved.xml"))
        np.testing.assert_array_equal(answers(again)[0], answers(head_inferencer)[0])
    head_inferencer.replace_bank(bank_file(head_model, tmp_path))
    assert same(bank_of(head_inferencer._model).pixels, pixels)
