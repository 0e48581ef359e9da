# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What a lesson says while others are learned, the folder changes, and tabs ask."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tifffile
from label_pictures import SIZE
from label_steps import scribble

from anomalib_aoissl.labelling.session import Session
from anomalib_aoissl.labelling.teaching import exporting
from anomalib_aoissl.labelling.teaching.lesson import Lesson
from anomalib_aoissl.retrieval.lightning_model import AOISSLRetrieval

pytestmark = pytest.mark.usefixtures("short_fits")


def learned(session: Session, *names: str) -> Lesson:
    """Return a lesson on painted pictures."""
    return session.lessons.teacher.teach(session.lessons._painted(list(names))[0], session.classes.names)


def test_a_lesson_keeps_its_directions_while_the_next_is_prepared(session: Session) -> None:
    """Of twice the pictures come other directions: the shown lesson does not know them."""
    scribble(session, 0, 1, 2, 3)
    teacher = session.lessons.teacher
    lesson = learned(session, "unit_0", "unit_1")
    before = teacher.suggest(lesson, "unit_3")
    teacher.prepare("unit_3", ["unit_0", "unit_1", "unit_2"])
    after, seen = teacher.suggest(lesson, "unit_3"), teacher.reader.see("unit_3")
    features = teacher._features_of(lesson.head, "unit_3", seen, keep=False)
    assert np.array_equal(after.classes, before.classes)
    assert np.array_equal(features.coarse, lesson.head.features(seen.image, seen.tokens).coarse.detach())


def test_a_lesson_learns_nothing_of_the_directions_of_the_last(session: Session) -> None:
    """The gallery of the last lesson goes on while the next one is prepared."""
    scribble(session, 0, 1, 2, 3)
    teacher, names = session.lessons.teacher, [f"unit_{index}" for index in range(4)]
    learned(session, *names)
    expected = {name: drawn.values for name, drawn in teacher.drawn.items()}
    again = type(teacher)(teacher.reader)
    session.lessons.teacher = again
    lesson = learned(session, "unit_0", "unit_1")
    again.prepare("unit_3", names[:3])
    again.suggest(lesson, "unit_0")
    learned(session, *names)
    for name in names:
        assert np.array_equal(again.drawn[name].values, expected[name]), name


@pytest.mark.parametrize("damaged", [True, False])
def test_the_export_needs_no_picture_without_paint(
    damaged: bool, session: Session, device: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Be the folder's first one damaged, or of five planes where the painted ones have three."""
    monkeypatch.setattr(AOISSLRetrieval, "to_openvino", lambda *_: None)  # tracing takes long
    first = device / "images" / "first.tif"
    tifffile.imwrite(first, np.zeros((*SIZE, 5), np.uint8), photometric="minisblack", planarconfig="contig")
    if damaged:
        first.write_bytes(first.read_bytes()[:1000])
    session.folder.scan()
    scribble(session, 0)
    exported = exporting.export(session.folder, session.masks, ["unit_0"], session.lessons.settings)
    assert "--model.in_channels 3" in (exported.folder / "README.txt").read_text()


def test_the_state_is_told_while_suggestions_arrive(session: Session) -> None:
    """The worker puts suggestions in, in its own thread, at any moment."""

    class Arriving:
        def __init__(self) -> None:
            self.info: dict[str, float] = {}

        @property
        def lesson(self) -> int:
            stored["unit_9"] = Arriving()
            return 1

    stored: dict[str, Any] = {"unit_0": Arriving(), "unit_1": Arriving()}
    lessons: Any = session.lessons
    lessons._stored, lessons.lesson = stored, SimpleNamespace(number=1)
    assert session.state()["suggested"] == {"unit_0": {}, "unit_1": {}}
