# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Threads that share an inferencer: each gets the answer to its own image, of the old model or of the new one."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
from editable_models import array_of, labelled
from small_exports import exported

from anomalib_aoissl import SegmentationOpenVINOInferencer
from anomalib_aoissl.deployment.files.model_file import core, read_model
from anomalib_aoissl.deployment.graph.bank import bank_of
from anomalib_aoissl.deployment.requests import SharedModel, compiled, of_one_picture, with_defaults

pytest.importorskip("openvino")

PICTURES = [array_of(picture) for picture in labelled(4, seed=21)[0]]


def test_each_thread_gets_its_own_answer() -> None:
    inferencer = SegmentationOpenVINOInferencer(exported())
    wanted = [inferencer.predict(picture).novelty for picture in PICTURES]
    start = Barrier(len(PICTURES))

    def camera(number: int) -> list[bool]:
        start.wait()
        return [np.array_equal(inferencer.predict(PICTURES[number]).novelty, wanted[number]) for _ in range(25)]

    with ThreadPoolExecutor(len(PICTURES)) as pool:
        assert all(all(right) for right in pool.map(camera, range(len(PICTURES))))


def test_answers_beside_edits_are_of_one_model() -> None:
    inferencer = SegmentationOpenVINOInferencer(exported())
    picture, (_, masks) = PICTURES[0], labelled(4, seed=21)
    names = ["background", "wire", "ball", "dirt"]
    before = inferencer.predict(picture)
    done: list[bool] = []

    def look() -> list[tuple[int, bytes]]:
        seen = []
        while not done:
            answer = inferencer.predict(picture)
            seen.append((len(answer.class_names), answer.novelty.tobytes()))
        return seen

    with ThreadPoolExecutor(2) as pool:
        looking = [pool.submit(look) for _ in range(2)]
        try:
            inferencer.adapt(picture, np.full_like(masks[0].numpy(), 3), device="d", name="n", class_names=names)
        finally:
            done.append(True)
        seen = {answer for future in looking for answer in future.result()}
    after = inferencer.predict(picture)
    assert seen <= {(3, before.novelty.tobytes()), (4, after.novelty.tobytes())}
    assert (3, before.novelty.tobytes()) in seen


def test_edits_of_several_threads_all_count(tmp_path: Path) -> None:
    inferencer = SegmentationOpenVINOInferencer(exported())
    _, masks = labelled(4, seed=21)
    start = Barrier(len(PICTURES))

    def learn(number: int) -> None:
        start.wait()
        inferencer.adapt(PICTURES[number], masks[number].numpy(), device=f"d{number}", name=f"n{number}")
        saved = bank_of(read_model(inferencer.save(tmp_path / f"{number}.xml")))
        assert f"n{number}" in saved.image_names

    with ThreadPoolExecutor(len(PICTURES)) as pool:
        list(pool.map(learn, range(len(PICTURES))))
    assert set(inferencer.bank["entries_of_device"]) == {"old", "d0", "d1", "d2", "d3"}


def test_pictures_that_are_answered_one_by_one_get_what_the_file_gives() -> None:
    model, images = read_model(exported()), labelled(4, seed=21)[0].numpy()
    one = of_one_picture(model)
    assert (str(model.input(0).partial_shape), str(one.input(0).partial_shape)) == ("[?,3,?,?]", "[1,3,?,?]")
    expected = core().compile_model(model, "CPU", with_defaults("CPU", None))(images)
    found = compiled(model, "CPU", with_defaults("CPU", None))(images)
    for name in ("pred_mask", "anomaly_map", "pred_score"):
        np.testing.assert_allclose(found[name], expected[name], atol=1e-5)
    assert [array.shape for array in found.to_tuple()] == [array.shape for array in expected.to_tuple()]


def test_a_request_that_fails_is_not_used_again() -> None:
    made = []

    class Request:
        def infer(self, images: int, **_: object) -> int:
            if images < 0:
                raise RuntimeError
            return 2 * images

    class Compiled:
        def create_infer_request(self) -> Request:
            made.append(Request())
            return made[-1]

    shared = SharedModel(Compiled(), 2)
    assert [shared(1), shared(2)] == [2, 4]  # type: ignore[arg-type]
    assert len(made) == 1
    with pytest.raises(RuntimeError):
        shared(-1)  # type: ignore[arg-type]
    assert shared(3) == 6  # type: ignore[arg-type]
    assert len(made) == 2


def test_nothing_is_kept_for_each_image_size() -> None:
    inferencer = SegmentationOpenVINOInferencer(exported(), config={"PERFORMANCE_HINT": "LATENCY"})
    compiled = inferencer._compiled._compiled
    assert compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name() == "f32"
    assert inferencer._target[1]["CPU_RUNTIME_CACHE_CAPACITY"] == 0
    for side in (33, 64, 97):
        assert inferencer.predict(np.zeros((side, 50, 3), np.uint8)).class_map.shape == (side, 50)
