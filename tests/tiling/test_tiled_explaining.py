# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""With tiles a pixel is explained by the tile that sees it best, at its place in the whole picture."""

import copy
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiled_models import CLASSES, TILING, array_of, drawn

from anomalib_aoissl import AOISSLRetrieval, SegmentationOpenVINOInferencer, Tiling
from anomalib_aoissl.bank.explaining import Explanation, Vote
from anomalib_aoissl.cli import checkpoints
from anomalib_aoissl.cli.dispatching import dispatch
from anomalib_aoissl.deployment.files.model_file import read_model, save_model
from anomalib_aoissl.deployment.graph.bank import bank_of, with_bank
from anomalib_aoissl.deployment.tiles.explaining import tiled_places
from anomalib_aoissl.models.preprocessing import standardize_light
from anomalib_aoissl.retrieval.asking.explaining import explain_region
from anomalib_aoissl.visualization.explanation_picture import draw_explanation

SIZE = (131, 170)
TILE = (48, 64)
ALONE, SHARED = (3, 5), (42, 57)
"""A pixel that one tile shows, and one that four show."""


@pytest.fixture(scope="module")
def picture() -> torch.Tensor:
    return drawn(1, SIZE, seed=9)[0][0]


def seen(model: AOISSLRetrieval, picture: torch.Tensor) -> torch.Tensor:
    """Return a picture [3, H, W] under its own light, normalised."""
    return model.pre_processor.normalize(standardize_light(picture[None]))[0]


def tile_of(pixel: tuple[int, int]) -> tuple[int, int]:
    """Return the corner of the tile in which a pixel lies furthest from the border, found by trying all."""

    def distance(corner: tuple[int, int]) -> list[int]:
        sides = [min(p - c, c + s - 1 - p) for p, c, s in zip(pixel, corner, TILE, strict=True)]
        return [min(sides), sum(sides)]

    return max(((tile.top, tile.left) for tile in TILING.grid(SIZE)), key=distance)


def at(pixel: tuple[int, int]) -> np.ndarray:
    region = np.zeros(SIZE, bool)
    region[pixel] = True
    return region


def reason(model: AOISSLRetrieval, picture: torch.Tensor, region: np.ndarray) -> Explanation:
    return explain_region(model.model, seen(model, picture), torch.from_numpy(region), TILING)[0]


@pytest.mark.parametrize("pixel", [ALONE, SHARED, (130, 169), (60, 80), (40, 100)])
def test_a_pixel_is_explained_by_the_tile_that_sees_it_best(
    tiled_model: AOISSLRetrieval, picture: torch.Tensor, pixel: tuple[int, int]
) -> None:
    top, left = tile_of(pixel)
    row, column = pixel[0] - top, pixel[1] - left
    tile = seen(tiled_model, picture)[None, :, top : top + TILE[0], left : left + TILE[1]]
    batch, share = tiled_model.model.answer(tile)
    found = reason(tiled_model, picture, at(pixel))
    assert (found.box, found.pixels) == ((*pixel, 1, 1), 1)
    assert found.predicted == {CLASSES[batch.pred_mask[0, 0, row, column]]: 1.0}
    novelty = float(batch.anomaly_map[0, 0, row, column])
    assert found.novelty == pytest.approx(novelty, abs=1e-5)
    assert found.uncertainty == pytest.approx(1 - float(share[0, 0, row, column]) * (1 - novelty**4), abs=1e-5)
    bank = tiled_model.model.bank
    query = tiled_model.model.read(tile).embeddings[0, row // 8 * 8 + column // 8]  # eight patches in a row of a tile
    similarities, best = (bank.embeddings @ query).topk(tiled_model.model.vote_options.k)
    votes = sorted(found.votes, key=lambda vote: -vote.similarity)
    assert {vote.entry for vote in votes} == set(best.tolist())
    assert [vote.similarity for vote in votes] == pytest.approx(similarities.tolist(), abs=1e-5)
    assert sum(vote.weight for vote in votes) == pytest.approx(1, abs=1e-5)


def test_where_one_tile_shows_a_pixel_the_tiled_prediction_says_the_same(
    tiled_model: AOISSLRetrieval, tiled_xml: Path, picture: torch.Tensor
) -> None:
    alone = sum(
        tile.top <= ALONE[0] < tile.top + TILE[0] and tile.left <= ALONE[1] < tile.left + TILE[1]
        for tile in TILING.grid(SIZE)
    )
    assert alone == 1
    inferencer = SegmentationOpenVINOInferencer(tiled_xml)
    result = inferencer.predict(array_of(picture))
    maps = tiled_model.predictions(seen(tiled_model, picture)[None])
    for found in (reason(tiled_model, picture, at(ALONE)), inferencer.explain(array_of(picture), ALONE)):
        assert found.predicted == {CLASSES[result.class_map[ALONE]]: 1.0}
        assert found.novelty == pytest.approx(float(result.novelty[ALONE]), abs=1e-4)
        assert found.uncertainty == pytest.approx(float(maps["uncertainty"][0][ALONE]), abs=1e-3)
        assert found.abstained == float(result.abstained[ALONE])


def test_a_region_over_tiles_is_the_mean_of_its_pixels(tiled_model: AOISSLRetrieval, picture: torch.Tensor) -> None:
    pixels = [ALONE, SHARED, (43, 57), (100, 150), (130, 169)]
    region = np.zeros(SIZE, bool)
    weights: Any = Counter()
    single = []
    for pixel in pixels:
        region[pixel] = True
        single.append(reason(tiled_model, picture, at(pixel)))
        for vote in single[-1].votes:
            weights[vote.entry] += vote.weight / len(pixels)
    assert len({tile_of(pixel) for pixel in pixels}) == 3
    found = reason(tiled_model, picture, region)
    assert (found.box, found.pixels) == ((3, 5, 128, 165), 5)
    assert {vote.entry: vote.weight for vote in found.votes} == pytest.approx(dict(weights), abs=1e-6)
    for name in ("novelty", "uncertainty", "differs", "abstained"):
        mean = np.mean([getattr(one, name) for one in single])
        assert getattr(found, name) == pytest.approx(mean, abs=1e-5), name
    shares = Counter(next(iter(one.predicted)) for one in single)
    assert found.predicted == pytest.approx({name: count / 5 for name, count in shares.items()})


def test_the_exported_model_explains_as_torch_does(
    tiled_model: AOISSLRetrieval, tiled_xml: Path, picture: torch.Tensor
) -> None:
    region = np.zeros(SIZE, bool)
    region[30:60, 40:90] = True
    expected = reason(tiled_model, picture, region)
    found = SegmentationOpenVINOInferencer(tiled_xml).explain(array_of(picture), region)
    assert (found.box, found.pixels) == (expected.box, expected.pixels) == ((30, 40, 30, 50), 1500)
    assert found.tally == pytest.approx(expected.tally, abs=1e-3)
    assert found.predicted == pytest.approx(expected.predicted, abs=0.01)
    for name in ("novelty", "uncertainty", "abstained", "differs"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), abs=0.01), name
    assert (found.votes[0].entry, found.votes[0].tile) == (expected.votes[0].entry, expected.votes[0].tile)


def test_a_learnt_pixel_is_explained_by_itself_at_its_place_in_the_picture(tiled_xml: Path, tmp_path: Path) -> None:
    pictures, masks = drawn(1, (90, 150), seed=21)
    file = tmp_path / "third.png"
    Image.fromarray(array_of(pictures[0])).save(file)
    inferencer = SegmentationOpenVINOInferencer(tiled_xml)
    inferencer.adapt(file, masks[0].numpy(), device="other", refit=False)

    def nearest() -> Vote:
        return max(inferencer.explain(array_of(pictures[0]), (70, 120)).votes, key=lambda vote: vote.similarity)

    tile = next(tile for tile in TILING.grid((90, 150)) if (tile.top, tile.left) == (42, 86))
    vote = nearest()
    assert (vote.image, vote.tile, vote.box) == (str(file), None, (42 + 24, 86 + 32, 8, 8))
    assert vote.unit == "px of the picture"
    assert vote.similarity == pytest.approx(1, abs=1e-4)
    file.unlink()
    vote = nearest()
    assert (vote.tile, vote.box) == (tile.index, (24, 32, 8, 8))  # where the tile lies is not known any more
    assert vote.unit == "px of the tile"


def test_places_of_pictures_that_are_others_now_are_those_in_a_tile(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((40, 200), np.uint8)).save(tmp_path / "a.png")  # five tiles, as a row
    place = tiled_places(Tiling((40, 40), 0), (40, 40), (8, 8))
    assert place(str(tmp_path / "a.png"), 3 * 25 + 7) == ((8, 120 + 16, 8, 8), None, "px of the picture")
    assert place(str(tmp_path / "a.png"), 5 * 25 + 7) == ((8, 16, 8, 8), 5, "px of the tile")
    assert place("no.png", 3 * 25 + 7) == ((8, 16, 8, 8), 3, "px of the tile")
    assert tiled_places(None, (40, 40), (8, 8))("no.png", 7) == ((8, 16, 8, 8), None, "px of the model's size")


@pytest.mark.parametrize("exported", [False, True])
def test_the_command_shows_places_in_the_whole_picture(
    tiled_model: AOISSLRetrieval, tiled_xml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exported: bool
) -> None:
    files = [tmp_path / "first.png", tmp_path / "second.png"]
    for file, image in zip(files, drawn(2, (80, 112), seed=1)[0], strict=True):  # the two that it has learnt
        Image.fromarray(array_of(image)).save(file)
    if exported:
        graph = read_model(tiled_xml)
        bank = replace(bank_of(graph), image_names=tuple(map(str, files)))
        source = ["--model", str(save_model(with_bank(graph, bank), tmp_path / "model.xml"))]
    else:
        model, checkpoint = copy.deepcopy(tiled_model), tmp_path / "model.ckpt"
        model.model.bank.image_names = [str(file) for file in files]
        checkpoint.touch()
        monkeypatch.setattr(checkpoints, "load_retrieval", lambda _: model)
        source = ["--ckpt_path", str(checkpoint)]
    data, output = tmp_path / "e.json", tmp_path / "e.png"
    given = ["explain", *source, "--image", str(files[1]), "--at", "100,70", "--data", str(data)]
    assert dispatch([*given, "--output", str(output)]) == 0
    content = json.loads(data.read_text())
    assert content["box"] == [70, 100, 1, 1]
    first = max(content["votes"], key=lambda vote: vote["similarity"])
    assert (first["image"], first["tile"]) == (str(files[1]), None)
    assert first["box"] == [32 + 32, 48 + 48, 8, 8]  # of the tile at (32, 48)
    frame = (np.array(Image.open(output)) == (255, 60, 200)).all(axis=-1)
    rows, columns = frame[: 12 + 371, :540].nonzero()  # the picture is 520 px wide, 12 px from the corner
    scale = 520 / 112
    assert [rows.mean(), columns.mean()] == pytest.approx([12 + 70.5 * scale, 12 + 100.5 * scale], abs=3)


def test_tiles_between_the_pixels_of_a_region_are_not_asked(
    tiled_model: AOISSLRetrieval, picture: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answer = [], tiled_model.model.answer

    def counted(images: torch.Tensor) -> Any:
        asked.append(tuple(images.shape))
        return answer(images)

    monkeypatch.setattr(tiled_model.model, "answer", counted)
    reason(tiled_model, picture, at((0, 0)) | at((130, 169)))
    assert asked == [(1, 3, *TILE)] * 2


def test_what_lies_around_the_region_is_shown_with_its_classes(
    tiled_model: AOISSLRetrieval, picture: torch.Tensor
) -> None:
    """Also those of tiles that explain nothing; what is not shown is not computed."""
    region = torch.from_numpy(at((38, 100)))
    _, classes = explain_region(tiled_model.model, seen(tiled_model, picture), region, TILING, (20, 80, 49, 49))
    mask = tiled_model.predictions(seen(tiled_model, picture)[None])["pred_mask"][0, 0].numpy()
    assert (classes[20:69, 80:129] == mask[20:69, 80:129]).mean() > 0.95
    assert mask[:, :50].any()
    assert not classes[:, :50].any()


def test_a_patch_whose_place_is_not_known_is_drawn_without_one() -> None:
    vote = Vote("second.png", "device", (8, 16, 8, 8), 0.9, 1.0, "disc", 1, 0, tile=3)
    explanation = Explanation((0, 0, 8, 8), 64, {"disc": 1.0}, {"disc": 1.0}, 0.0, 0.1, 0.1, None, [vote])
    labels, query = np.ones((1, 8, 8), np.uint8), np.full((80, 112, 3), 40, np.uint8)
    mask = np.zeros((80, 112), np.uint8)
    sheet = np.array(draw_explanation(explanation, query, mask, CLASSES, labels, lambda _: query, None))
    assert (sheet == 110).all(axis=-1).sum() > 0.8 * 190 * 190
