# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What the page learns: scribbles become masks, left-out pictures judge, and the export is what training gives."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from label_pictures import SIZE, picture, scribbles, truth, until
from label_steps import scribble
from PIL import Image

from anomalib_aoissl.deployment.abstaining import uncertainty_of
from anomalib_aoissl.labelling.session import Session
from anomalib_aoissl.labelling.storage.masks import Region
from anomalib_aoissl.labelling.storage.problems import Problem
from anomalib_aoissl.labelling.teaching import enlarging, judging, ordering
from anomalib_aoissl.labelling.teaching.worker import Interrupted, Worker

pytestmark = pytest.mark.usefixtures("short_fits")


def taught(session: Session, name: str) -> Any:
    session.lessons.teacher  # noqa: B018 - made in this thread
    session.lessons._teach(name, 0.0)
    return session.lessons.suggestion(name)


def classes_of(stored: Any) -> np.ndarray:
    import zlib

    values = np.frombuffer(zlib.decompress(stored.data), np.uint8)
    return values[: len(values) // 2].reshape(stored.size)


def test_scribbles_of_one_picture_label_another(all_filters: None, session: Session) -> None:
    scribble(session, 0)
    taught(session, "unit_0")
    lesson = session.lessons.lesson
    assert lesson is not None
    found = session.lessons.teacher.suggest(lesson, "unit_3")
    assert (found.classes == truth()).mean() > 0.97
    assert set(lesson.names) == {"unit_0"}


def test_a_lesson_learns_those_painted_last_of_very_many(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{index:04d}" for index in range(1000)]
    times = {name: f"{(7 * index) % 1000:04x}" for index, name in enumerate(names)}
    found = ordering.learned(names, times.__getitem__)
    assert len(found) == len(set(found)) == 64
    assert found == sorted(found)
    assert set(sorted(names, key=times.__getitem__)[-32:]) <= set(found)
    assert max(np.diff([int(name) for name in found])) < 60
    monkeypatch.setattr(ordering, "MOST_LEARNED", 2)
    scribble(session, 0, 1, 2)
    scribble(session, 0)
    taught(session, "unit_3")
    lesson = session.lessons.lesson
    assert lesson is not None
    assert len(lesson.names) == 2
    bar = np.full((2, 2), 2, np.uint8)
    session.stroke("unit_2", Region(0, 0, bar), session.masks.version("unit_2"), "brush", "me")
    assert "unit_2" in session.lessons._learned()


def test_a_later_lesson_says_what_changed(session: Session) -> None:
    scribble(session, 0)
    first = classes_of(taught(session, "unit_1"))
    wrong = np.full((40, 30), 2, np.uint8)
    session.stroke("unit_0", Region(50, 20, wrong), session.masks.version("unit_0"), "brush", "me")
    stored = taught(session, "unit_1")
    assert stored.lesson == 2
    assert stored.info["changed"] == pytest.approx((classes_of(stored) != first).mean(), abs=1e-4)
    assert stored.info["changed"] > 0


def test_a_suggestion_is_enlarged_by_its_probabilities() -> None:
    """Against torch's own, in odd sizes and in strips."""
    from torch.nn import functional

    generator = torch.Generator().manual_seed(0)
    for size, strip in (((37, 53), 10**6), ((129, 64), 900), ((16, 24), 900)):
        probabilities = torch.rand(3, 16, 24, generator=generator).softmax(dim=0)
        novelty = torch.rand(4, 6, generator=generator)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(enlarging, "_STRIP", strip)
            classes, unsure, novel = enlarging.decided(probabilities, novelty, size, (0.8, 0.5))
        larger = functional.interpolate(probabilities[None], size, mode="bilinear", align_corners=False)[0]
        new = functional.interpolate(novelty[None, None], size, mode="bilinear", align_corners=False)[0, 0]
        sure = larger.sort(dim=0, descending=True)[0]
        clear = (sure[0] - sure[1]) > 1e-5
        assert torch.equal(classes[clear].long(), larger.argmax(dim=0)[clear])
        assert clear.float().mean() > 0.99
        assert ((novel == (new > 0.5)) | ((new - 0.5).abs() < 1e-5)).all()
        wanted = uncertainty_of(sure[0], new)
        assert ((unsure == (wanted > 0.8)) | ((wanted - 0.8).abs() < 1e-5)).all()


def test_a_large_picture_has_a_fine_suggestion(session: Session, device: Path) -> None:
    large = (4 * SIZE[0], 4 * SIZE[1])
    Image.fromarray(picture(7, large)).save(device / "images" / "large.png")
    session.folder.scan()
    scribble(session, 0)
    assert taught(session, "large").size == large
    lessons = session.lessons
    for _ in lessons._gallery(lessons.lesson):  # type: ignore[arg-type]
        pass
    stored = lessons._stored["unit_1"]
    assert (stored.size, stored.fine) == (SIZE, False)
    assert lessons._stored["large"].size == large  # the gallery does not make it coarse again
    found = classes_of(lessons._stored["large"])
    blocks = found.reshape(SIZE[0], 4, SIZE[1], 4)
    assert (blocks != blocks[:, :1, :, :1]).any()
    scribble(session, 1)
    coarse = lessons.teacher.teach(lessons._painted(session.painted())[0], session.classes.names)
    lessons.lesson = coarse
    lessons._keep("large", lessons.teacher.suggest(coarse, "large"))
    changed = lessons._stored["large"].info["changed"]
    lessons._keep("large", lessons.teacher.suggest(coarse, "large", fine=True), fine=True)
    assert lessons._stored["large"].info["changed"] == pytest.approx(changed, abs=1e-3)
    assert enlarging.fine_size((5000, 5000), (512, 512)) == (4000, 4000)
    assert enlarging.fine_size((100, 900), (512, 512)) == (512, 900)


def test_one_class_alone_is_said(session: Session) -> None:
    session.stroke("unit_0", Region(0, 0, np.ones((4, 4), np.uint8)), "0", "brush", "me")
    with pytest.raises(Problem, match="only 'bright' is painted"):
        taught(session, "unit_0")


def test_tokens_are_read_once_by_content(session: Session, device: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = session.lessons.teacher.reader
    first = reader.see("unit_0")
    model = reader.model.model
    whole = model.read(first.image)
    assert torch.allclose(first.embeddings, whole.embeddings[0], atol=2e-3)
    assert torch.allclose(first.tokens, whole.tokens, atol=2e-2)
    monkeypatch.setattr(model, "read", lambda _: pytest.fail("was read again"))
    again = type(reader)(session.folder, session.lessons.settings)
    monkeypatch.setattr(again.model.model, "read", lambda _: pytest.fail("was read again"))
    assert torch.equal(again.see("unit_0").tokens, first.tokens)
    (device / "images" / "unit_0.png").rename(device / "images" / "other.png")
    session.folder.scan()
    assert torch.equal(again.see("other").tokens, first.tokens)
    assert len(list(reader.cache.glob("*.npz"))) == 1
    with pytest.raises(pytest.fail.Exception):
        again.see("unit_1")
    (reader.cache / "old.npy").write_bytes(b"of version 0.2.0")
    reader.trim(largest=0)
    assert not list(reader.cache.iterdir())


def test_a_stroke_and_the_order_decode_no_other_picture(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    scribble(session, 0, 1)
    teacher = session.lessons.teacher
    for name in ("unit_0", "unit_1", "unit_2", "unit_3"):
        teacher.reader.see(name)
    taught(session, "")
    again = type(teacher.reader)(session.folder, session.lessons.settings)  # as after a restart: tokens are on disk
    again._model, again._hash = teacher.reader._model, teacher.reader._hash
    teacher.reader = again
    decoded: list[str] = []
    real = again._resized
    monkeypatch.setattr(again, "_resized", lambda picture: (decoded.append(picture.name), real(picture))[1])
    for _ in session.lessons._order():
        pass
    assert decoded == []
    teacher.prepare("unit_1", session.painted())
    assert decoded == ["unit_1"]


@pytest.mark.parametrize("left", [0, 50, 2000])
def test_a_damaged_cache_is_read_anew(left: int, session: Session) -> None:
    reader = session.lessons.teacher.reader
    first = reader.see("unit_0").tokens
    for path in reader.cache.glob("*.npz"):
        path.write_bytes(path.read_bytes()[:left])
    assert torch.equal(reader.see("unit_0").tokens, first)


def test_left_out_pictures_judge(session: Session) -> None:
    """The picture whose labels are wrong is the one that the others predict otherwise."""
    scribble(session, 0, 1)
    swapped = scribbles()
    swapped = np.where(swapped == 255, 255, np.array([1, 0, 2])[np.minimum(swapped, 2)])
    session.stroke("unit_2", Region(0, 0, swapped.astype(np.uint8)), "0", "brush", "me")
    good: list[Any] = []
    bad: list[Any] = []
    for names, into in ((("unit_0", "unit_1"), good), (("unit_0", "unit_1", "unit_2"), bad)):
        painted = {name: one for name, one in session.lessons._painted(session.painted())[0].items() if name in names}
        lesson = session.lessons.teacher.teach(painted, session.classes.names)
        into.extend(one for one in judging.judge(session.lessons.teacher, lesson) if one is not None)
    assert good[0].mean_iou > 0.95
    assert bad[0].mean_iou < 0.8
    assert (good[0].pictures, bad[0].pictures) == (2, 3)


def test_one_picture_alone_is_not_judged(session: Session) -> None:
    scribble(session, 0)
    taught(session, "unit_0")
    lesson = session.lessons.lesson
    assert lesson is not None
    assert list(judging.judge(session.lessons.teacher, lesson)) == []


def test_the_order_is_that_of_label_next(session: Session) -> None:
    from anomalib_aoissl.retrieval.asking.label_next import choose, summarize

    reader = session.lessons.teacher.reader
    names = [one.name for one in session.folder.pictures]
    bank = reader.model.model.bank.embeddings
    pool = [summarize(name, reader.see(name).embeddings, bank) for name in names]
    expected = choose(pool, 4)
    found = ordering.ranked(pool)
    assert [one.name for one in found] == [one.name for one in expected]
    assert found[0].reason.startswith("1. stands for many pictures")


def test_a_session_learns_in_the_background(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    scribble(session, 0, 1)
    told: list[str] = []
    monkeypatch.setattr(session.events, "send", lambda kind, **_: told.append(kind))
    session.start()
    session.lessons.teach("unit_3")
    until(lambda: session.lessons.lesson and session.lessons.worker.idle())
    state = session.state()
    assert [kind for kind in dict.fromkeys(told) if kind in {"next", "gallery"}] == ["next", "gallery"]
    assert set(state["suggested"]) == {f"unit_{index}" for index in range(4)}
    assert [point["pictures"] for point in state["curve"]] == [2]
    assert {name for name, _ in state["next"]} == {"unit_2", "unit_3"}
    assert state["progress"] == {}
    assert json.loads((session.folder.own / "curve.json").read_text()) == state["curve"]


def test_a_bad_picture_is_left_out_and_said(session: Session, device: Path) -> None:
    scribble(session, 0, 1)
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(device / "masks" / "unit_1.png")
    (device / "images" / "unit_2.png").write_bytes(b"no picture")
    heard = session.events.listen()
    next(heard)
    session.start()
    session.lessons.teach("unit_0")
    until(lambda: '"taught"' in next(heard))
    until(session.lessons.worker.idle)
    assert session.lessons.lesson is not None
    assert session.lessons.lesson.names == ("unit_0",)
    assert "unit_2" not in session.state()["suggested"]
    session.lessons.suggestion("unit_2")
    line = until(lambda: next((text for text in [next(heard)] if '"problem"' in text), None))
    assert "unit_2.png" in line


def test_the_worker_does_what_is_waited_for_first() -> None:
    done: list[str] = []
    begun, waiting = threading.Event(), threading.Event()
    worker = Worker(lambda name, error: done.append(f"{name}: {error}"))

    def long() -> Iterator[None]:
        for step in range(3):
            begun.set()
            waiting.wait(30)
            worker.pause()
            done.append(f"long {step}")
            yield

    def short() -> None:
        done.append("short")

    def broken() -> None:
        msg = "no"
        raise ValueError(msg)

    worker.put("long", 5, long)
    worker.put("broken", 7, broken)
    worker.start()
    begun.wait(30)
    worker.put("short", 0, short)
    waiting.set()
    until(worker.idle)
    worker.stop()
    assert done == ["short", "long 0", "long 1", "long 2", "broken: no"]


def test_a_job_that_is_done_at_once_is_done_again_where_it_was_interrupted() -> None:
    tries = iter((Interrupted, None))
    failed: list[str] = []
    worker = Worker(lambda name, error: failed.append(f"{name}: {error}"))

    def whole() -> None:
        if interrupted := next(tries):
            raise interrupted

    worker.put("whole", 0, whole)
    worker.start()
    until(worker.idle)
    worker.stop()
    assert not failed
    assert not list(tries)


def test_the_export_is_what_training_gives(
    session: Session, device: Path, tmp_path: Path, tiny_encoder: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same folder by anomalib's own engine, with another datamodule object and model, and by the arguments."""
    from anomalib.engine import Engine

    from anomalib_aoissl import AOISSLRetrieval, SegmentationFolder

    monkeypatch.setattr(AOISSLRetrieval, "to_openvino", lambda *_: None)  # tracing takes long, and changes no weights
    scribble(session, 0, 1)
    bare = np.zeros(SIZE, np.uint8)
    session.stroke("unit_2", Region(0, 0, bare), "0", "fill", "me")  # nothing but background: it is learned too
    session.lessons._export()
    exported = session.lessons.exported
    assert exported is not None
    model = AOISSLRetrieval(
        encoder={**tiny_encoder, "pretrained": False},
        image_size=SIZE,
        in_channels=3,
        abstain=0.05,
        visualizer=False,
    )
    engine = Engine(default_root_dir=tmp_path / "run", enable_progress_bar=False, logger=False, accelerator="cpu")
    engine.train(model, datamodule=SegmentationFolder(exported.folder / "dataset"))
    ours = torch.load(exported.folder / "weights" / "lightning" / "model.ckpt", weights_only=True)["state_dict"]
    theirs = model.state_dict()
    assert len(ours["model.bank.embeddings"]) > 20
    assert [Path(name).stem for name in model.model.bank.image_names] == ["unit_0", "unit_1", "unit_2"]
    for name, tensor in ours.items():
        if isinstance(tensor, torch.Tensor):
            assert torch.equal(tensor, theirs[name]), name
    text = (exported.folder / "README.txt").read_text()
    assert "anomalib train --model AOISSLRetrieval --data SegmentationFolder --data.root dataset" in text
    for name, expected in (("unit_0", scribbles()), ("unit_1", scribbles()), ("unit_2", bare)):
        with Image.open(exported.folder / "dataset" / "train" / "masks" / f"{name}.png") as mask:
            assert np.array_equal(np.array(mask), expected)


def test_a_picture_of_background_alone_is_learned(session: Session) -> None:
    scribble(session, 0)
    before = taught(session, "unit_3").info
    session.stroke("unit_1", Region(0, 0, np.zeros(SIZE, np.uint8)), "0", "fill", "me")
    assert taught(session, "unit_3").info != before
    lesson = session.lessons.lesson
    assert lesson is not None
    assert lesson.names == ("unit_0", "unit_1")
    assert set(session.lessons.teacher.drawn["unit_1"].labels.tolist()) == {0}
    assert (lesson.model.bank.image_ids == lesson.model.bank.image_names.index("unit_1")).sum() > 20


def test_background_alone_is_not_exported(session: Session) -> None:
    session.stroke("unit_0", Region(0, 0, np.zeros(SIZE, np.uint8)), "0", "fill", "me")
    with pytest.raises(Problem, match="Paint a class first"):
        session.lessons._export()


def test_the_exported_model_is_tried(session: Session, device: Path) -> None:
    pytest.importorskip("openvino")
    import io

    def tried() -> Any:
        with session.arrivals.receiving("unit_3.png") as received:
            received.write_bytes((device / "images" / "unit_3.png").read_bytes())
            return session.try_on("unit_3.png", received, "tab")

    with pytest.raises(Problem, match="Press Export first"):
        tried()
    scribble(session, 0, 1)
    session.lessons._export()
    assert session.lessons.exported is not None
    session.change_class("recolour", 2, "#12ab34")
    with Image.open(io.BytesIO(tried())) as shown:
        assert shown.width == SIZE[1]
        legend = np.array(shown)[SIZE[0] :].reshape(-1, 3).tolist()
    assert [0x12, 0xAB, 0x34] in legend  # the page's own colour
    assert not list((session.folder.own / "trial").rglob("*.png"))
    assert (session.lessons.exported.folder / "bank.safetensors").is_file()
    (session.lessons.exported.folder.parent / "2999-01-01_00-00-00").mkdir()  # one that was killed
    again = Session(device, session.lessons.settings)
    assert again.lessons.exported == session.lessons.exported  # so that a picture can be tried after a restart
    again.stop()


def test_torch_is_not_loaded_before_the_page_is_there(device: Path) -> None:
    """And its threads are told before that to sleep while they wait."""
    code = (
        "import os, sys, argparse\n"
        "os.environ.pop('OMP_WAIT_POLICY', None)\n"
        "from anomalib_aoissl.cli.label import label, label_arguments\n"
        "from anomalib_aoissl.labelling.server import application, running\n"
        "running.serve = lambda *_, **__: None\n"
        "parser = argparse.ArgumentParser()\n"
        "label_arguments(parser)\n"
        "label(parser.parse_args(sys.argv[1:]))\n"
        "assert not {'torch', 'anomalib', 'lightning'} & set(sys.modules)\n"
        "assert os.environ['OMP_WAIT_POLICY'] == 'PASSIVE'"
    )
    subprocess.run([sys.executable, "-c", code, str(device)], check=True)
