# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Many pictures: results in order, as soon as they are there, few read ahead, errors that name their picture."""

import os
from collections.abc import Iterator
from pathlib import Path
from threading import Barrier, Event, Lock, active_count
from typing import Any

import cv2
import numpy as np
import pytest

from anomalib_aoissl import SegmentationOpenVINOInferencer
from anomalib_aoissl.deployment.many import PictureError, in_order
from anomalib_aoissl.deployment.requests import SharedModel


def test_results_of_changing_sizes_are_those_of_single_calls_in_order(
    head: SegmentationOpenVINOInferencer, arrays: dict[str, np.ndarray]
) -> None:
    sizes = [(40, 70), (33, 21), (64, 64), (40, 70), (90, 31)] * 3
    pictures = [cv2.resize(arrays["pictures"][n % 4], size[::-1]) for n, size in enumerate(sizes)]
    results = list(head.predict_many(pictures))
    for picture, result in zip(pictures, results, strict=True):
        np.testing.assert_array_equal(result.class_map, head.predict(picture).class_map)


def test_items_are_taken_when_they_are_needed_and_only_so_many() -> None:
    taken, count = [], Lock()

    def items() -> Iterator[int]:
        for number in range(1000):
            with count:
                taken.append(number)
            yield number

    results: Any = in_order(lambda _, item: item * item, items(), 3)
    assert taken == []
    for number in range(20):
        assert next(results) == number * number
        assert len(taken) <= number + 1 + 2 * 3
    results.close()
    assert len(taken) < 40


def test_all_workers_work_at_once() -> None:
    meeting = Barrier(3, timeout=20)

    def meet(index: int, _: int) -> int:
        meeting.wait()
        return index

    assert list(in_order(meet, range(6), 3)) == list(range(6))


def test_a_result_does_not_wait_for_the_next_picture() -> None:
    seen = Event()

    def camera() -> Iterator[int]:
        yield 1
        assert seen.wait(timeout=20)
        yield 2

    results = in_order(lambda _, item: item, camera(), 2)
    assert next(results) == 1
    seen.set()
    assert list(results) == [2]


def test_errors_come_in_the_place_of_their_result_and_name_the_picture(
    head: SegmentationOpenVINOInferencer, arrays: dict[str, np.ndarray], tmp_path: Path
) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    picture = arrays["pictures"][0]
    images = [picture, bad, np.full((8, 8, 3), "x"), picture]
    results = list(head.predict_many(images, return_errors=True))
    assert [isinstance(result, PictureError) for result in results] == [False, True, True, False]
    assert (results[1].index, results[1].image) == (1, str(bad))
    assert str(bad) in str(results[1])
    assert str(results[2]).startswith("image 2: ")

    raising = head.predict_many(images)
    np.testing.assert_array_equal(next(raising).class_map, results[0].class_map)
    with pytest.raises(PictureError, match=r"bad\.png"):
        next(raising)


def test_what_the_items_raise_comes_after_all_results() -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        msg = "the camera is gone"
        raise OSError(msg)

    results = in_order(lambda _, item: item, items(), 2)
    seen: list[int] = []
    with pytest.raises(OSError, match="the camera is gone"):
        seen.extend(iter(lambda: next(results), None))
    assert seen == [0, 1, 2]


def test_threads_end_with_the_iterator() -> None:
    before = active_count()
    results: Any = in_order(lambda _, item: item, range(100), 3)
    next(results)
    results.close()
    assert list(in_order(lambda _, item: item, range(5), 3)) == list(range(5))
    ended = Event()
    ended.wait(0.1) if active_count() > before else None
    assert active_count() <= before + 1  # a thread that takes items ends with its last one


@pytest.mark.parametrize("one", ["picture.png", Path("picture.png"), np.zeros((4, 4, 3), np.uint8)])
def test_one_picture_is_not_many(head: SegmentationOpenVINOInferencer, one: object) -> None:
    with pytest.raises(TypeError, match=r"images must be many.*got one .*Call predict"):
        head.predict_many(one)  # type: ignore[arg-type]


def test_a_hint_is_added_to_the_defaults_and_widens_the_pool(models: Path) -> None:
    config = {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": 2, "INFERENCE_NUM_THREADS": 2}
    wide, narrow = (SegmentationOpenVINOInferencer(models / "bank.xml", config=c) for c in (config, None))
    compiled = wide._compiled._compiled
    assert compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name() == "f32"
    optimal = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
    assert optimal == min(2, cores)  # one stream for each core, where a process has no more
    assert wide._compiled.requests == optimal + 1
    assert narrow._compiled.requests == 2


def test_no_more_requests_are_made_than_the_pool_has() -> None:
    made, both = [], Barrier(2, timeout=20)

    class Request:
        def infer(self, images: int, **_: object) -> int:
            both.wait()
            return images

    class Compiled:
        def create_infer_request(self) -> Request:
            made.append(Request())
            return made[-1]

    shared = SharedModel(Compiled(), 2)
    assert list(in_order(lambda _, item: shared(item), range(10), 6)) == list(range(10))  # type: ignore[arg-type]
    assert len(made) == 2
