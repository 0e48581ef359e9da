# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Abstention: the uncertainty by hand, the calibration by brute force, the threshold from training to the export."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from anomalib.data import InferenceBatch
from anomalib.engine import Engine
from editable_models import ENCODER, labelled
from PIL import Image

from anomalib_aoissl import AOISSLRetrieval, SegmentationFolder, SegmentationOpenVINOInferencer
from anomalib_aoissl.data.describing.file_format import FileFormat
from anomalib_aoissl.data.items import SegmentationBatch
from anomalib_aoissl.deployment.abstaining import AbstentionFormat, uncertainty_of
from anomalib_aoissl.deployment.files.model_file import core
from anomalib_aoissl.encoder.vit import PatchEncoder
from anomalib_aoissl.evaluation.risk_coverage import BINS, histogram
from anomalib_aoissl.pixel_head.learning.views import symmetric_view, views_of
from anomalib_aoissl.retrieval import calibration
from anomalib_aoissl.retrieval.calibration import CALIBRATION_IMAGES, ask_of_others, calibrate_on_bank, without_images
from anomalib_aoissl.retrieval.memory.memory_bank import MemoryBank
from anomalib_aoissl.retrieval.options import VoteOptions
from anomalib_aoissl.retrieval.torch_model import RetrievalModel
from anomalib_aoissl.visualization.overlay import hatch, legend

SIZE = (32, 48)
NAMES = ["background", "wire", "ball"]
QUIET = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}


def make_model(tiny_encoder: dict, images: int = 3, **arguments: Any) -> tuple[RetrievalModel, torch.Tensor]:
    encoder = PatchEncoder(tiny_encoder, image_size=SIZE, pretrained=False)
    bank = MemoryBank(encoder.embed_dim, encoder.patch_size, budget=arguments.pop("budget", None))
    vote = arguments.pop("vote", {})
    model = RetrievalModel(encoder, VoteOptions(5, 0.1, **vote), bank=bank, **arguments).eval()
    pictures, masks = torch.rand(images, 3, *SIZE), torch.randint(0, 3, (images, *SIZE)).to(torch.uint8)
    masks[:, :3, :5] = 255
    bank.class_names = list(NAMES)
    model.fill(pictures, masks, ["d"] * images, [f"image{index}" for index in range(images)])
    bank.finish()
    return model, pictures


def test_uncertainty_by_hand() -> None:
    share, novelty = torch.tensor([0.75, 0.5, 0.0]), torch.tensor([0.2, 0.0, 0.5])
    torch.testing.assert_close(uncertainty_of(share, novelty), torch.tensor([1 - 0.75 * 0.9984, 0.5, 1.0]))
    torch.testing.assert_close(uncertainty_of(share, novelty, 1), torch.tensor([0.4, 0.5, 1.0]))  # of version 0.2.0
    assert uncertainty_of(torch.tensor(1.0), torch.tensor(1.7)) == 1  # a similarity below 0 is none
    np.testing.assert_allclose(uncertainty_of(share.numpy(), novelty.numpy()), uncertainty_of(share, novelty).numpy())


def test_uncertainty_of_the_model_equals_a_loop_over_pixels(tiny_encoder: dict) -> None:
    model, _ = make_model(tiny_encoder)
    image = torch.rand(1, 3, *SIZE)
    batch, share = model.answer(image)
    result = model.uncertainty(batch, share)
    assert result.shape == (1, 1, *SIZE)
    bank, queries = model.bank, model.read(image).embeddings[0]
    similarities = queries @ bank.embeddings.T
    for row, column in [(0, 0), (7, 9), (20, 31), (31, 47)]:
        place = row % 8 * 8 + column % 8
        values, entries = similarities[row // 8 * 6 + column // 8].topk(5)
        weights = (values / 0.1).softmax(dim=0)
        votes = np.zeros(3)
        for weight, neighbour in zip(weights.tolist(), entries.tolist(), strict=True):
            label = bank.labels[neighbour, place]
            if label != 255:
                votes[label] += weight
        expected = 1 - votes.max() / votes.sum() * (1 - batch.anomaly_map[0, 0, row, column].item() ** 4)
        assert result[0, 0, row, column].item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("budget", [None, 40])
def test_calibration_on_the_bank_asks_each_image_of_the_others(tiny_encoder: dict, budget: int | None) -> None:
    model, _ = make_model(tiny_encoder, budget=budget)
    calibrate_on_bank(model)
    bank, expected = model.bank, torch.zeros(BINS, dtype=torch.int64)
    counts = bank.counts.tolist() if budget else [1] * len(bank)
    for query in range(len(bank)):
        others = (bank.image_ids != bank.image_ids[query]).nonzero()[:, 0]  # brute force, one query at a time
        similarities = bank.embeddings[others] @ bank.embeddings[query]
        values, order = similarities.topk(5)
        weights = (values / 0.1).softmax(dim=0)
        votes = torch.zeros(64, 3)
        for weight, entry in zip(weights, others[order], strict=True):
            for index in range(3):
                votes[:, index] += weight * counts[int(entry)] ** 0.5 * (bank.labels[entry] == index)
        share = votes.amax(dim=1) / votes.sum(dim=1).clamp(min=1e-9)
        uncertainty = (1 - share * (1 - (1 - values[0]) ** 4))[bank.labels[query] != 255]
        expected += counts[query] * histogram(uncertainty)
    moved = (model.abstention.pixels - expected).cumsum(0).abs().max()  # rounding moves few pixels to the next bin
    assert moved <= 0.01 * expected.sum()
    assert model.abstention.pixels.sum() == expected.sum()


def test_an_image_does_not_vote_for_itself(tiny_encoder: dict) -> None:
    model, pictures = make_model(tiny_encoder)
    view = without_images(model, ["image1"])
    assert len(view.bank) == 2 * 24
    assert set(view.bank.image_ids.tolist()) == {0, 2}
    assert len(model.bank) == 3 * 24  # the model itself is as it was
    queries = model.read(pictures[1:2]).embeddings[0]
    assert model.vote(queries)[0][:, 0].min() > 0.9999
    assert view.vote(queries)[0][:, 0].max() < 0.9999
    assert view.abstention is model.abstention


def test_one_image_cannot_be_asked_of_others(tiny_encoder: dict) -> None:
    model, _ = make_model(tiny_encoder, images=1, abstain=0.1)
    calibrate_on_bank(model)
    assert not model.abstention.calibrated
    assert model.abstention.threshold is None


def test_the_calibration_is_in_the_state_dict_and_an_older_one_loads(tiny_encoder: dict) -> None:
    model, _ = make_model(tiny_encoder, abstain=0.1)
    calibrate_on_bank(model)
    other, _ = make_model(tiny_encoder, abstain=0.1)
    other.load_state_dict(model.state_dict())
    assert other.abstention.threshold == model.abstention.threshold
    assert 0 < model.abstention.threshold < 1
    state = {key: value for key, value in model.state_dict().items() if key != "abstention.power"}  # of 0.2.0
    other.load_state_dict(state)
    assert other.abstention.threshold == model.abstention.threshold
    answer, share = torch.tensor([[[[0.25]]]]), torch.tensor([[[[0.5]]]])
    batch = InferenceBatch(anomaly_map=answer)
    assert other.uncertainty(batch, share).item() == pytest.approx(1 - 0.5 * 0.75)  # what its threshold was set for
    assert model.uncertainty(batch, share).item() == pytest.approx(1 - 0.5 * (1 - 0.25**4))
    calibrate_on_bank(other)
    assert other.uncertainty(batch, share).item() == pytest.approx(1 - 0.5 * (1 - 0.25**4))
    state = {key: value for key, value in model.state_dict().items() if "abstention" not in key}
    other.load_state_dict(state)
    assert other.abstention.threshold is None


@pytest.mark.parametrize("share", [0, 1, -0.1, 5])
def test_a_share_out_of_range_raises(tiny_encoder: dict, share: float) -> None:
    with pytest.raises(ValueError, match=rf"abstain={share} must lie in \(0, 1\)"):
        AOISSLRetrieval(encoder={**tiny_encoder, "pretrained": False}, image_size=SIZE, abstain=share)


# --- in anomalib's engine ---------------------------------------------------------------------------------------------


def trained(
    folder: Path, drawn_folder: Path, tiny_encoder: dict, model: dict | None = None, **data: Any
) -> tuple[AOISSLRetrieval, Any]:
    retrieval = AOISSLRetrieval(
        encoder={**tiny_encoder, "pretrained": False}, image_size=(64, 96), abstain=0.2, **model or {}
    )
    options = {"num_workers": 0, "test_ratio": 0.25, "val_ratio": 0.25, **data}
    engine = Engine(default_root_dir=folder, **QUIET)
    engine.fit(retrieval, datamodule=SegmentationFolder(drawn_folder, **options))
    return retrieval, engine


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, drawn_folder: Path, tiny_encoder: dict) -> Any:
    model, engine = trained(tmp_path_factory.mktemp("run"), drawn_folder, tiny_encoder)
    results = engine.test(model, datamodule=engine.trainer.datamodule)[0]
    checkpoint = Path(engine.best_model_path)
    return SimpleNamespace(model=model, engine=engine, results=results, folder=checkpoint.parents[2], ckpt=checkpoint)


def uncertain_pixels(model: AOISSLRetrieval, loader: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the uncertainty, the prediction and the truth of all pixels of a loader, flat."""
    parts = []
    model.eval()
    for batch in loader:
        with torch.no_grad():
            answer, share = model.model.answer(model.pre_processor(batch.image))
            uncertainty = model.model.uncertainty(answer, share)
        truth = torch.nn.functional.interpolate(batch.gt_mask[:, None].float(), (64, 96))
        parts.append([t.as_subclass(torch.Tensor).flatten() for t in (uncertainty, answer.pred_mask, truth)])
    uncertainty, predicted, truth = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return uncertainty, predicted, truth


def test_the_threshold_keeps_to_the_share_of_the_validation_pixels(run: Any) -> None:
    threshold = run.model.model.abstention.threshold
    uncertainty, _, _ = uncertain_pixels(run.model, run.engine.trainer.datamodule.val_dataloader())
    assert 0.19 < (uncertainty > threshold).float().mean() <= 0.2
    loaded = AOISSLRetrieval.load_from_checkpoint(run.ckpt)
    assert loaded.model.abstention.threshold == threshold
    other = AOISSLRetrieval(abstain=0.5)  # another share is read off the same calibration
    other.on_load_checkpoint(content := torch.load(run.ckpt, weights_only=True))
    other.load_state_dict(content["state_dict"])
    assert 0.49 < (uncertainty > other.model.abstention.threshold).float().mean() <= 0.5


def test_logged_metrics_are_those_of_the_test_pixels(run: Any) -> None:
    uncertainty, predicted, truth = uncertain_pixels(run.model, run.engine.trainer.datamodule.test_dataloader())
    kept = uncertainty <= run.model.model.abstention.threshold
    wrong = predicted != truth
    assert run.results["coverage"] == pytest.approx(kept.float().mean().item(), abs=1e-4)
    assert run.results["selective_risk"] == pytest.approx(wrong[kept].float().mean().item(), abs=1e-4)
    order = uncertainty.argsort()
    by_sorting = (wrong[order].double().cumsum(0) / torch.arange(1, len(wrong) + 1)).mean().item()
    assert run.results["aurc"] == pytest.approx(by_sorting, abs=1e-3)
    assert run.results["aurc"] < wrong.float().mean()
    assert (run.folder / "risk_coverage.png").is_file()


def test_pictures_are_hatched_where_the_model_does_not_know(run: Any) -> None:
    for path in (run.folder / "images").rglob("*.png"):
        picture = np.array(Image.open(path))[:, 2 * 480 : 3 * 480]
        stripes = (picture == 255).all(axis=-1) | (picture == 0).all(axis=-1)
        assert stripes.mean() > 0.02


@pytest.mark.parametrize("options", [{}, {"level": "images"}, {"search": "faiss-flat"}])
def test_without_validation_images_the_labelled_ones_are_asked_of_each_other(
    drawn_folder: Path, tiny_encoder: dict, tmp_path: Path, options: dict
) -> None:
    if "search" in options:
        pytest.importorskip("faiss")
    model, engine = trained(tmp_path, drawn_folder, tiny_encoder, val_ratio=0.0, model={"head": None, "vote": options})
    (checkpoint,) = tmp_path.rglob("model.ckpt")
    content = torch.load(checkpoint, weights_only=True)
    expected, labelled = [], engine.trainer.datamodule.train_data
    assert 2 < len(labelled) < CALIBRATION_IMAGES
    for item in labelled:
        other = AOISSLRetrieval()  # a whole model, out of whose bank the image is taken
        other.on_load_checkpoint(content)
        other.load_state_dict(content["state_dict"])
        other.eval().remove(image=item.image_path)
        expected.append(other.predictions(other.pre_processor(item.image[None]))["uncertainty"].flatten())
    uncertainty, abstention = torch.cat(expected), model.model.abstention
    assert abstention.pixels.sum() == len(uncertainty)
    # of whole images many pixels are as uncertain, so that fewer may lie above the threshold
    lowest = abstention.threshold - (2 / BINS if "level" in options else 0)
    assert 0.19 < (uncertainty > lowest).float().mean()
    assert (uncertainty > abstention.threshold).float().mean() <= 0.2
    moved = (abstention.pixels - histogram(uncertainty)).cumsum(0).abs().max()  # rounding moves few to the next bin
    assert moved <= 0.001 * len(uncertainty)


def test_of_many_labelled_images_some_are_asked(
    drawn_folder: Path, tiny_encoder: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def ask(model: RetrievalModel, image: torch.Tensor, mask: torch.Tensor, name: str) -> None:
        asked.append(name)
        ask_of_others(model, image, mask, name)

    monkeypatch.setattr(calibration, "CALIBRATION_IMAGES", 3)
    monkeypatch.setattr(calibration, "ask_of_others", ask)
    model, engine = trained(tmp_path, drawn_folder, tiny_encoder, val_ratio=0.0, model={"head": None})
    paths = engine.trainer.datamodule.train_data.samples.image_path
    assert asked == [paths[0], paths[len(paths) // 3], paths[2 * len(paths) // 3]]
    assert model.model.abstention.pixels.sum() == 3 * 64 * 96


def pixels_of_views(images: int) -> int:
    """Return how many pixels of so many images of 64x96 px their views under their own light show."""
    planes, mask = np.zeros((3, 64, 96), np.float32), np.zeros((64, 96), np.uint8)
    views = [index for order in range(images) for index in views_of(order, images) if index % 2 == 0]
    return sum(int((symmetric_view(planes, mask, index)[1] != 255).sum()) for index in views)


def test_with_a_head_labelled_pixels_are_asked_of_networks_of_other_images(
    drawn_folder: Path, tiny_encoder: dict, tmp_path: Path
) -> None:
    model, _ = trained(tmp_path, drawn_folder, tiny_encoder, val_ratio=0.0)
    sample, abstention = model.model.bank.pixels, model.model.abstention
    known = np.isfinite(sample.novelty)
    assert 0 < known.sum() < len(sample)  # of views under the images' own light alone
    labelled = pixels_of_views(len(model.model.bank.image_names))
    assert int(abstention.pixels.sum()) == pytest.approx(labelled, rel=0.01)
    # with one bin more, too many pixels would lie above the threshold
    above = abstention.pixels.flip(0).cumsum(0).flip(0) / abstention.pixels.sum()
    edge = round(abstention.threshold * BINS)
    assert above[edge] <= 0.2 < above[edge - 1]


def test_ignored_pixels_of_a_labelled_image_do_not_count(tiny_encoder: dict) -> None:
    model, pictures = make_model(tiny_encoder)
    mask = torch.randint(0, 3, SIZE).to(torch.uint8)
    mask[:3, :5] = 255
    ask_of_others(model, pictures[1:2], mask, "image1")
    batch, share = without_images(model, ["image1"]).answer(pictures[1:2])
    expected = model.uncertainty(batch, share)[0, 0][mask != 255]
    assert torch.equal(model.abstention.pixels, histogram(expected))
    alone, _ = make_model(tiny_encoder, images=1)
    ask_of_others(alone, pictures[:1], mask, "image0")
    assert not alone.abstention.calibrated


def test_one_labelled_image_calibrates_nothing(
    drawn_folder: Path, tiny_encoder: dict, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        model, _ = trained(tmp_path, drawn_folder, tiny_encoder, val_ratio=0.0, shots=1, devices=["sot23_copper"])
    assert "abstain=0.2 has no effect: there are no validation images, and 1 labelled image(s)" in caplog.text
    assert model.model.abstention.threshold is None


@pytest.mark.parametrize("head", ["pixel", None])
def test_an_edited_bank_is_calibrated_on_its_entries(
    run: Any, caplog: pytest.LogCaptureFixture, head: str | None
) -> None:
    model = AOISSLRetrieval.load_from_checkpoint(run.ckpt).eval()
    if head is None:
        model.model.head.clear()
    names = list(model.model.bank.image_names)
    model.calibrate()
    labelled = int(((model.model.bank.labels != 255).sum(dim=1) * model.model.bank.entry_counts()).sum())
    # with a head pixels are drawn, and each stands for a rounded number of them
    expected = pytest.approx(pixels_of_views(len(names)), rel=0.01) if head else labelled
    assert model.model.abstention.pixels.sum() == expected
    for name in names[1:]:
        model.remove(image=name)
    with caplog.at_level(logging.WARNING):
        model.calibrate()
    assert "abstain=0.2 has no effect" in caplog.text
    assert model.model.abstention.threshold is None  # that of other entries is none of theirs


def test_validation_images_of_the_bank_are_left_out_of_the_calibration(tiny_encoder: dict) -> None:
    model = AOISSLRetrieval(encoder={**tiny_encoder, "pretrained": False}, image_size=SIZE, abstain=0.1).eval()
    model.model, pictures = make_model(tiny_encoder)
    truth = torch.zeros(2, *SIZE, dtype=torch.uint8)
    truth[1, :4] = 255
    batch = SegmentationBatch(image=pictures[:2], gt_mask=truth, image_path=["image0", "elsewhere"])
    model.validation_step(batch, 0)
    assert model.model.abstention.pixels.sum() == (truth[1] != 255).sum()


# --- exported ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["pixel", None])
def test_the_exported_model_abstains_as_the_trained_one(
    request: pytest.FixtureRequest, tmp_path: Path, head: str | None
) -> None:
    pytest.importorskip("openvino")
    traced = request.getfixturevalue("model" if head is None else "head_model")
    model = AOISSLRetrieval(
        encoder={**ENCODER, "pretrained": False}, image_size=SIZE, abstain=0.5, head=head, bank={"size": 70}
    ).eval()
    model.set_dataset(NAMES, FileFormat())
    model.load_state_dict(traced.state_dict())
    model._onnx_model = traced._onnx_model  # whose threshold is no part of it
    model.calibrate()
    assert model.model.has_fitted_head == (head is not None)
    path = model.to_openvino(tmp_path)
    outputs = {next(iter(output.names)) for output in core().read_model(path).outputs}
    assert outputs == {"pred_mask", "anomaly_map", "pred_score"}
    inferencer = SegmentationOpenVINOInferencer(path)
    learnt = torch.nn.functional.interpolate(labelled(2, seed=1)[0], SIZE)
    pictures = learnt.permute(0, 2, 3, 1).numpy()
    pictures[:, SIZE[0] // 2 :] = np.random.default_rng(0).random((2, SIZE[0] // 2, SIZE[1], 3))
    expected = model.predictions(model.pre_processor(torch.from_numpy(pictures).permute(0, 3, 1, 2)))
    for index, result in enumerate(inferencer.predict_batch(list(pictures))):
        np.testing.assert_allclose(result.uncertainty, expected["uncertainty"][index].numpy(), atol=1e-4)
        assert (result.abstained == expected["abstained"][index].numpy()).mean() > 0.99
        assert result.abstained.any()
        assert not result.abstained.all()
        overlay = np.array(result.overlay())[: SIZE[0]]
        assert (overlay[result.abstained] == 255).all(axis=-1).any()
    large = inferencer.predict(np.kron(pictures[0], np.ones((2, 2, 1), dtype=np.float32)))
    assert large.uncertainty.shape == large.abstained.shape == (64, 96)
    inferencer.threshold = None
    assert inferencer.predict(pictures[0]).abstained is None


def test_pixels_of_patches_in_numpy() -> None:
    form = AbstentionFormat.from_dict(AbstentionFormat(0.5, (2, 3), (4, 5)).to_dict())
    old = {key: value for key, value in form.to_dict().items() if key != "power"}  # of version 0.2.0
    assert (form.power, AbstentionFormat.from_dict(old).power) == (4, 1)
    share = np.arange(2 * 6 * 20, dtype=np.float32).reshape(12, 20) / 240
    result = form.uncertainty(share, np.full((2, 8, 15), 0.5, dtype=np.float32))
    for image, row, column in [(0, 0, 0), (0, 5, 11), (1, 7, 14)]:
        patch = image * 6 + row // 4 * 3 + column // 5
        assert result[image, row, column] == pytest.approx(1 - 0.9375 * share[patch, row % 4 * 5 + column % 5])
    pixels = np.random.default_rng(0).random((2, 8, 15), dtype=np.float32)
    np.testing.assert_allclose(form.uncertainty(pixels, np.zeros_like(pixels)), 1 - pixels)


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_hatching_covers_only_what_is_asked_and_the_legend_says_what_it_means() -> None:
    picture, where = np.full((40, 60, 3), 90, dtype=np.uint8), np.zeros((40, 60), dtype=bool)
    where[:, 30:] = True
    result = hatch(picture, where)
    assert (result[:, :30] == 90).all()
    shares = [(result[:, 30:] == value).all(axis=-1).mean() for value in (255, 0, 90)]
    np.testing.assert_allclose(shares, [0.25, 0.25, 0.5], atol=0.02)
    plain, with_entry = (np.array(legend(NAMES, 600, abstains=flag)) for flag in (False, True))
    changed = (plain != with_entry).any(axis=(0, 2)).nonzero()[0]
    assert changed.min() > 200  # behind the classes
    assert len(changed) > 60
