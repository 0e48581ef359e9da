# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""`AOISSLRetrieval` with tiles: what it learns, finds and says, and that the exported model says the same."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anomalib.engine import Engine
from editable_models import bank_files, labelled
from PIL import Image
from tiled_models import CLASSES, TILING, array_of, drawn, predicted

from anomalib_aoissl import AOISSLRetrieval, SegmentationFolder, SegmentationOpenVINOInferencer, Tiling
from anomalib_aoissl.data.reading import read_mask
from anomalib_aoissl.deployment.files.model_file import core, read_model
from anomalib_aoissl.deployment.graph.bank import NotEditableError, bank_of, read_metadata
from anomalib_aoissl.deployment.tiles.graph import LIGHT, tile_graph
from anomalib_aoissl.models.preprocessing import standardize_light
from anomalib_aoissl.plugin.arguments import ArgumentError

pytestmark = pytest.mark.usefixtures("short_fits", "all_filters")


def test_tiles_of_a_picture_are_one_image(tiled_model: AOISSLRetrieval) -> None:
    bank, grid = tiled_model.model.bank, TILING.grid((80, 112))
    assert len(grid) == 4
    assert bank.image_names == ["first", "second"]
    assert len(bank) == 2 * 4 * 48
    for image in (0, 1):
        positions = bank.positions[bank.image_ids == image].tolist()
        assert sorted(positions) == list(range(4 * 48))  # no two patches of an image share a position
    folds = {image: set(bank.pixels.folds[bank.pixels.image_ids == image].tolist()) for image in (0, 1)}
    assert folds == {0: {0}, 1: {1}}  # a network that left out an image saw none of its tiles


def test_a_patch_is_that_of_the_tile_under_the_light_of_the_picture(tiled_model: AOISSLRetrieval) -> None:
    pictures, _ = drawn(2, (80, 112), seed=1)
    grid = TILING.grid((80, 112))
    tile = list(grid)[2]
    lit = tiled_model.pre_processor.normalize(standardize_light(pictures[1:]))
    part = lit[..., tile.top : tile.top + 48, tile.left : tile.left + 64]
    expected = tiled_model.model.read(part).embeddings[0]
    bank = tiled_model.model.bank
    place = (bank.image_ids == 1) & (bank.positions == 2 * 48 + 7)
    torch.testing.assert_close(bank.embeddings[place][0], expected[7], atol=1e-5, rtol=0)


def test_objects_are_found_on_a_large_picture_as_on_a_small_one(tiled_model: AOISSLRetrieval) -> None:
    hits = {}
    for size in ((48, 64), (331, 417)):
        pictures, masks = drawn(1, size, seed=7)
        answer = tiled_model(pictures)
        assert answer.pred_mask.shape == answer.anomaly_map.shape == (1, 1, *size)
        right = answer.pred_mask[0, 0] == masks[0]
        hits[size] = [float(right[masks[0] == index].float().mean()) for index in range(3)]
    assert min(hits[331, 417]) > 0.85
    for small, large in zip(*hits.values(), strict=True):
        assert large > small - 0.05


def test_a_picture_smaller_than_a_tile(tiled_model: AOISSLRetrieval) -> None:
    pictures, masks = drawn(1, (30, 50), seed=7)
    answer = tiled_model(pictures)
    assert answer.pred_mask.shape == (1, 1, 30, 50)
    assert float((answer.pred_mask[0, 0] == masks[0]).float().mean()) > 0.85


@pytest.mark.parametrize("size", [(30, 50), (48, 64), (131, 170)])
def test_the_exported_model_says_the_same(tiled_model: AOISSLRetrieval, tiled_xml: Path, size: tuple) -> None:
    inferencer = SegmentationOpenVINOInferencer(tiled_xml)
    assert inferencer.tiling == TILING
    pictures, _ = drawn(1, size, seed=9)
    expected = tiled_model.predictions(tiled_model.pre_processor.see_picture(pictures))
    result = inferencer.predict(array_of(pictures[0]))
    assert (result.class_map == expected["pred_mask"][0, 0].numpy()).mean() >= 0.999
    np.testing.assert_allclose(result.novelty, expected["anomaly_map"][0, 0].numpy(), atol=1e-4)
    np.testing.assert_allclose(result.uncertainty, expected["uncertainty"][0].numpy(), atol=1e-3)
    assert (result.abstained == expected["abstained"][0].numpy()).mean() > 0.99
    assert result.score == pytest.approx(float(expected["pred_score"][0]), abs=1e-4)
    assert result.image.shape == (*size, 3)


def test_the_engines_prediction_is_that_of_the_line(
    tiled_model: AOISSLRetrieval, tiled_xml: Path, tmp_path: Path
) -> None:
    """Of files of two sizes, one of them smaller than a tile; masks are written at the pictures' own size."""
    inferencer = SegmentationOpenVINOInferencer(tiled_xml)
    for path, batch in predicted(copy.deepcopy(tiled_model), [(131, 170), (30, 50)], tmp_path):
        result, mask = inferencer.predict(path), batch.pred_mask[0].numpy()
        assert mask.shape == result.class_map.shape
        (written,) = (tmp_path / "results").rglob(f"masks/{path.name}")
        assert np.array_equal(read_mask(written), mask)
        assert (mask == result.class_map).mean() >= 0.999
        assert len(np.unique(mask)) == 3
        np.testing.assert_allclose(batch.anomaly_map[0].numpy(), result.novelty, atol=1e-4)
        np.testing.assert_allclose(batch.uncertainty[0].numpy(), result.uncertainty, atol=1e-3)
        assert float(batch.pred_score[0]) == pytest.approx(result.score, abs=1e-4)


def test_the_file_is_the_model_of_one_tile_with_its_usual_outputs(
    tiled_model: AOISSLRetrieval, tiled_xml: Path
) -> None:
    """A stock inferencer runs it, and a picture of one tile gets the same mask either way."""
    graph = read_model(tiled_xml)
    assert {next(iter(output.names)) for output in graph.outputs} == {"pred_mask", "anomaly_map", "pred_score"}
    assert len(graph.inputs) == 1
    assert read_metadata(graph)["tiling"] == {"size": [48, 64], "overlap": 16}
    pictures, _ = drawn(1, (48, 64), seed=11)
    stock = core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(pictures.numpy())
    ours = SegmentationOpenVINOInferencer(tiled_xml).predict(array_of(pictures[0]))
    assert (stock["pred_mask"][0, 0] == ours.class_map).mean() > 0.999
    tiles = tile_graph(graph, ["class_probabilities"])
    assert [node.get_friendly_name() for node in tiles.get_parameters()][1:] == list(LIGHT)


def test_it_learns_a_picture_in_tiles(tiled_xml: Path, tmp_path: Path) -> None:
    inferencer = SegmentationOpenVINOInferencer(tiled_xml)
    pictures, masks = drawn(1, (90, 150), seed=21)
    image, mask = array_of(pictures[0]), masks[0].numpy().copy()
    mask[:, :70] = 255  # a part is labelled
    before = inferencer.predict(image)
    learnt = inferencer.adapt(image, mask, device="other", name="third")
    tiles = [tile for tile in TILING.grid((90, 150)) if tile.left + 64 > 70]
    assert 48 * (len(tiles) - 4) < learnt <= 48 * len(tiles)
    bank = bank_of(inferencer._model)
    assert bank.image_names == ("first", "second", "third")
    assert int((bank.entries["image_ids"] == 2).sum()) == learnt == len(set(bank.entries["positions"][-learnt:]))
    after = inferencer.predict(image)
    assert after.novelty[:, 80:].max() < 1e-3 < before.novelty[:, 80:].max()
    right = after.class_map == masks[0].numpy()
    assert right.mean() > 0.85
    opened = SegmentationOpenVINOInferencer(inferencer.save(tmp_path / "taught.xml"))
    assert np.array_equal(opened.predict(image).class_map, after.class_map)
    assert inferencer.remove(image="third") == learnt
    assert inferencer.predict(image).novelty.max() > 1e-3


def test_results_go_to_files_strip_by_strip(tiled_xml: Path, tmp_path: Path) -> None:
    inferencer = SegmentationOpenVINOInferencer(tiled_xml)
    image = array_of(drawn(1, (131, 170), seed=9)[0][0])
    expected = inferencer.predict(image)
    result = inferencer.predict(image, output=tmp_path / "unit.tif")
    for name in ("class_map", "novelty", "uncertainty"):
        assert isinstance(getattr(result, name), np.memmap)
        assert np.array_equal(getattr(result, name), getattr(expected, name))
    assert {path.name for path in tmp_path.iterdir()} == {"unit.tif", "unit_novelty.tif", "unit_uncertainty.tif"}
    Image.open(tmp_path / "unit.tif").load()
    batch = inferencer.predict_batch([image, image[:60]])
    assert [one.class_map.shape for one in batch] == [(131, 170), (60, 170)]
    with pytest.raises(ValueError, match="must end with one of"):
        inferencer.predict(image, output=tmp_path / "unit.png")
    with pytest.raises(ValueError, match=r"output=.*is the picture itself"):
        inferencer.predict(tmp_path / "unit.tif", output=tmp_path / "unit.tif")


def test_a_model_of_whole_pictures_takes_tiles_of_its_size(tmp_path: Path) -> None:
    path = bank_files() / "weights" / "openvino" / "model.xml"  # for 32x48 px
    pictures = labelled(1, seed=1)[0][..., :32, :48]
    assert SegmentationOpenVINOInferencer(path).tiling is None
    inferencer = SegmentationOpenVINOInferencer(path, tiling={"size": (32, 48), "overlap": 0.25})
    whole = drawn(1, (90, 100), seed=3)[0]
    result = inferencer.predict(array_of(whole[0]))
    assert result.class_map.shape == (90, 100)
    same = SegmentationOpenVINOInferencer(path).predict(array_of(pictures[0]))
    assert (inferencer.predict(array_of(pictures[0])).class_map == same.class_map).mean() > 0.999
    with pytest.raises(ValueError, match=r"tiling.size=\(40, 48\) must be the model's size, \(32, 48\) px"):
        SegmentationOpenVINOInferencer(path, tiling=Tiling((40, 48), 8))
    with pytest.raises(ValueError, match=r"output=.*by a model with tiles"):
        SegmentationOpenVINOInferencer(path).predict(array_of(whole[0]), output=tmp_path / "a.tif")


def test_a_model_from_before_tiles_says_so(tiled_xml: Path, tmp_path: Path) -> None:
    """Such a model has no tensor of the light's name."""
    import openvino

    graph = core().read_model(tiled_xml)
    for node in graph.get_ordered_ops():
        for output in node.outputs():
            output.set_names(output.get_names() - set(LIGHT))
    metadata = {key: value for key, value in read_metadata(graph).items() if key != "tiling"}
    graph.set_rt_info(json.dumps(metadata), ["framework", "aoissl"])
    openvino.serialize(graph, tmp_path / "old.xml", tmp_path / "old.bin")
    SegmentationOpenVINOInferencer(tmp_path / "old.xml")
    with pytest.raises(NotEditableError, match=r"old.xml: .*exported before .*tiles.*Export it again"):
        SegmentationOpenVINOInferencer(tmp_path / "old.xml", tiling=TILING)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"tiling": {"size": [50, 64]}},
            r"tiling.size=\(50, 64\) does not fit .*patch is 8x8 px.*\(48, 64\) or \(56, 64\)",
        ),
        (
            {"tiling": Tiling((48, 64)), "image_size": (64, 64)},
            r"image_size=\(64, 64\) and tiling.size=\(48, 64\) differ",
        ),
        (
            {"tiling": Tiling((48, 64)), "vote": {"level": "images"}, "head": None},
            r"tiling cuts pictures, but vote.level",
        ),
        ({"tiling": Tiling((48, 64)), "pre_processor": False}, "tiling needs the model's own pre-processor"),
        ({"tiling": {"size": [48, 64], "overlap": 48}}, "tiling.overlap=48 must be"),
    ],
)
def test_what_does_not_fit_is_said(tiny_encoder: dict, arguments: dict, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        AOISSLRetrieval(encoder={**tiny_encoder, "pretrained": False}, **arguments)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with pictures of two sizes, the last two for the test."""
    root = tmp_path_factory.mktemp("pictures")
    (root / "classes.txt").write_text("\n".join(CLASSES))
    for index, size in enumerate([(80, 112), (70, 150), (100, 90), (60, 140)]):
        pictures, masks = drawn(1, size, seed=30 + index)
        split = root / ("train" if index < 2 else "test")
        for kind, array in (("images", array_of(pictures[0])), ("masks", masks[0].numpy())):
            (split / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(split / kind / f"{index}.png")
    return root


def test_train_test_and_checkpoint_at_native_resolution(folder: Path, tiny_encoder: dict, tmp_path: Path) -> None:
    model = AOISSLRetrieval(encoder={**tiny_encoder, "pretrained": False}, tiling=TILING, visualizer=False)
    data = SegmentationFolder(folder, num_workers=0)
    quiet = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    engine = Engine(default_root_dir=tmp_path, **quiet)
    (results,) = engine.train(model, datamodule=data)
    paths = {Path(name).name for name in model.model.bank.image_names}
    assert paths == {"0.png", "1.png"}
    tiles = {"0.png": len(TILING.grid((80, 112))), "1.png": len(TILING.grid((70, 150)))}
    names = [Path(model.model.bank.image_names[index]).name for index in model.model.bank.image_ids.tolist()]
    assert {name: names.count(name) for name in tiles} == {name: 48 * count for name, count in tiles.items()}
    confusion = np.zeros((3, 3))
    for index in range(2):
        item = data.test_data[index]
        predicted = model(item.image.as_subclass(torch.Tensor)[None]).pred_mask[0, 0].numpy()
        np.add.at(confusion, (item.gt_mask.numpy().ravel(), predicted.ravel()), 1)
    hits, unions = confusion.diagonal(), confusion.sum(0) + confusion.sum(1) - confusion.diagonal()
    assert confusion.sum() == 100 * 90 + 60 * 140
    assert results["mean_iou"] == pytest.approx((hits / unions).mean(), abs=1e-3)
    assert results["mean_iou"] > 0.6
    checkpoint: Any = engine.trainer.checkpoint_callback
    path = checkpoint.best_model_path
    loaded = AOISSLRetrieval.load_from_checkpoint(path)
    assert loaded.tiling == TILING
    other = AOISSLRetrieval(encoder={**tiny_encoder, "pretrained": False}, visualizer=False)  # knows nothing of tiles
    again = Engine(default_root_dir=tmp_path, **quiet)
    (tested,) = again.test(other, datamodule=SegmentationFolder(folder, num_workers=0), ckpt_path=path)
    assert tested["mean_iou"] == results["mean_iou"]
    picture = drawn(1, (80, 112), seed=40)[0]
    assert torch.equal(loaded.eval()(picture).pred_mask, model.eval()(picture).pred_mask)
    assert AOISSLRetrieval.load_from_checkpoint(path, tiling=Tiling((48, 64), 8)).tiling == Tiling((48, 64), 8)
    with pytest.raises(ValueError, match=r"image_size=\(48, 64\) and tiling.size=\(40, 64\) differ"):
        AOISSLRetrieval.load_from_checkpoint(path, tiling=Tiling((40, 64), 8))
