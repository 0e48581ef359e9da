# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Many pictures in tiles: the same as one by one, in order, with all workers at work and few pictures in memory."""

import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Barrier, Event, Lock
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiled_models import array_of, drawn

from anomalib_aoissl import SegmentationOpenVINOInferencer, Tiling
from anomalib_aoissl.deployment.many import PictureError
from anomalib_aoissl.deployment.tiles.blending import Answers, CutPicture, RunTile, strips_of
from anomalib_aoissl.deployment.tiles.many import each_in_tiles

TILING = Tiling((300, 300), 60)  # so large that each is asked alone
WORKERS = 3


def cutting(run: RunTile) -> Callable[[Any], tuple[CutPicture, Callable[[Answers], np.ndarray]]]:
    """Return what `each_in_tiles` takes, of arrays [H, W]; a result is the blended map of what a function gives."""

    def cut(image: np.ndarray) -> tuple[CutPicture, Callable[[Answers], np.ndarray]]:
        picture = CutPicture(image[np.newaxis], TILING.grid(image.shape), run)

        def finish(answers: Answers) -> np.ndarray:
            return np.concatenate([strip.copy() for _, strip in strips_of(picture, answers)], axis=1)[0]

        return picture, finish

    return cut


def many(run: RunTile, images: Any, *, return_errors: bool = False) -> Any:
    return each_in_tiles(cutting(run), images, WORKERS, return_errors=return_errors)


def pictures(sizes: list[tuple[int, int]]) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.random(size).astype(np.float32) for size in sizes]


def double(tiles: np.ndarray) -> np.ndarray:
    return 2 * tiles


@pytest.mark.parametrize("call", ["predict_many", "predict_batch"])
def test_results_are_those_of_one_by_one_in_order(tiled_xml: Path, tmp_path: Path, call: str) -> None:
    inferencer = SegmentationOpenVINOInferencer(tiled_xml)
    sizes = [(30, 50), (131, 170), (48, 64), (48, 64), (90, 40), (60, 200), (48, 64)]
    images: list[Any] = [array_of(drawn(1, size, seed=index)[0][0]) for index, size in enumerate(sizes)]
    Image.fromarray(images[2]).save(tmp_path / "third.png")
    images[2] = tmp_path / "third.png"
    results: Any = list(getattr(inferencer, call)(images))
    for image, size, result in zip(images, sizes, results, strict=True):
        expected = inferencer.predict(image)
        assert result.class_map.shape == size
        for name in ("class_map", "novelty", "uncertainty", "abstained", "image"):
            np.testing.assert_array_equal(getattr(result, name), getattr(expected, name))
        assert (result.score, result.class_names) == (expected.score, expected.class_names)


@pytest.mark.parametrize("call", ["predict_many", "predict_batch"])
def test_all_infer_requests_work_for_pictures_of_one_tile(
    tiled_xml: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    inferencer = SegmentationOpenVINOInferencer(tiled_xml)
    tiled: Any = inferencer._loaded.tiled
    run, meeting = tiled._run, Barrier(tiled.workers, timeout=20)

    def meet(inputs: Any) -> Any:
        meeting.wait()
        return run(inputs)

    assert tiled.workers > 1
    monkeypatch.setattr(tiled, "_run", meet)
    picture = array_of(drawn(1, (48, 64), seed=2)[0][0])
    assert len(list(getattr(inferencer, call)([picture] * 2 * tiled.workers))) == 2 * tiled.workers


def test_a_batch_keeps_few_pictures_beside_its_results(tiled_xml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as wait with their tiles, two that are read ahead, and one in each hand."""
    inferencer = SegmentationOpenVINOInferencer(tiled_xml)
    read, workers = inferencer._read, inferencer._loaded.tiled.workers  # type: ignore[union-attr]
    kept: weakref.WeakSet[Any] = weakref.WeakSet()
    most = [0]

    def counted(*arguments: Any) -> np.ndarray:
        planes = read(*arguments)
        kept.add(Kept(planes))
        most[0] = max(most[0], len(kept))
        return planes

    class Kept:
        """Lives as long as the planes: an array cannot be in a set."""

        def __init__(self, planes: np.ndarray) -> None:
            weakref.finalize(planes, lambda _: None, self)

    monkeypatch.setattr(inferencer, "_read", counted)
    picture = array_of(drawn(1, (48, 64), seed=2)[0][0])
    assert len(inferencer.predict_batch([picture] * 60)) == 60
    assert 0 < most[0] <= 2 * workers + 5


def test_a_batch_names_the_picture_that_fails(tiled_xml: Path) -> None:
    inferencer = SegmentationOpenVINOInferencer(tiled_xml)
    good = array_of(drawn(1, (48, 64), seed=2)[0][0])
    with pytest.raises(PictureError, match=r"^image 1: "):
        inferencer.predict_batch([good, np.full((8, 8, 3), "x"), good])
    with pytest.raises(ValueError, match="at least one image"):
        inferencer.predict_batch([])
    assert len(inferencer.predict_batch(np.stack([good, good]))) == 2  # type: ignore[arg-type]


def test_pictures_of_one_tile_share_all_workers() -> None:
    meeting = Barrier(WORKERS, timeout=20)

    def meet(tiles: np.ndarray) -> np.ndarray:
        meeting.wait()  # breaks where fewer calls run at once
        return 2 * tiles

    images = pictures([(300, 300)] * 2 * WORKERS)
    for image, result in zip(images, many(meet, images), strict=True):
        np.testing.assert_allclose(result, 2 * image, rtol=1e-6)


def test_tiles_of_the_next_picture_are_asked_while_a_result_is_looked_at() -> None:
    """As many as wait at most, without the caller's help; and a part of the third picture is read at most."""
    asked, enough, lock = [0], Event(), Lock()

    def counted(tiles: np.ndarray) -> np.ndarray:
        with lock:
            asked[0] += len(tiles)
            if asked[0] >= 9 + 2 * WORKERS - 1:
                enough.set()
        return tiles

    images = pictures([(780, 780)] * 4)  # of nine tiles each
    results = many(counted, images)
    next(results)
    assert enough.wait(20)
    assert asked[0] <= 9 + 2 * WORKERS


@pytest.mark.parametrize(("size", "ahead"), [((780, 780), 3), ((300, 300), 2 * WORKERS + 3)])
def test_few_pictures_are_in_memory(size: tuple[int, int], ahead: int) -> None:
    taken, lock = [0], Lock()

    def endless() -> Iterator[np.ndarray]:
        while True:
            with lock:
                taken[0] += 1
            yield np.ones(size, np.float32)

    results = many(double, endless())
    assert taken[0] == 0
    for number in range(1, 15):
        next(results)
        assert taken[0] <= number + ahead
    results.close()
    assert taken[0] <= 14 + ahead + 1


def test_a_result_does_not_wait_for_the_next_picture() -> None:
    seen, (first, second) = Event(), pictures([(500, 400), (300, 300)])

    def camera() -> Iterator[np.ndarray]:
        yield first
        assert seen.wait(timeout=20)
        yield second

    results = many(double, camera())
    np.testing.assert_allclose(next(results), 2 * first, rtol=1e-6)
    seen.set()
    np.testing.assert_allclose(next(results), 2 * second, rtol=1e-6)
    assert not list(results)


def test_errors_come_in_the_place_of_their_result() -> None:
    """Of a picture that cannot be read, of the first tile of one, and of the last."""
    images: list[Any] = pictures([(780, 780)] * 5)
    images[1] = "no such picture"
    images[2][0, 0], images[3][779, 779] = 7, 7

    def fails(tiles: np.ndarray) -> np.ndarray:
        if tiles.max() > 1:
            msg = "a seven"
            raise RuntimeError(msg)
        return 2 * tiles

    found = list(many(fails, images, return_errors=True))
    kinds = [isinstance(one, PictureError) for one in found]
    assert kinds == [False, True, True, True, False]
    assert [(one.index, one.image) for one in found[1:4]] == [(1, "no such picture"), (2, None), (3, None)]
    assert str(found[1]).startswith("no such picture: ")
    assert str(found[2]) == "image 2: a seven"
    np.testing.assert_allclose(found[4], 2 * images[4], rtol=1e-6)
    raising = many(fails, images[2:])
    with pytest.raises(PictureError, match="image 0: a seven"):
        next(raising)


def test_what_the_camera_raises_comes_after_all_results() -> None:
    def camera() -> Iterator[np.ndarray]:
        yield from pictures([(300, 300)] * 3)
        msg = "the camera is gone"
        raise OSError(msg)

    seen: list[np.ndarray] = []
    with pytest.raises(OSError, match="the camera is gone"):
        seen.extend(many(double, camera()))
    results = many(double, camera())
    assert [next(results).shape for _ in range(3)] == [(300, 300)] * 3


def test_one_picture_is_not_many() -> None:
    with pytest.raises(TypeError, match=r"images must be many.*got one ndarray"):
        many(double, np.zeros((9, 9), np.float32))
