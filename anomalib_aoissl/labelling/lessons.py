# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What a session learns, and when: lessons, suggestions for all pictures, how good they are, what to label next."""

from __future__ import annotations

import json
import math
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from anomalib_aoissl.data.files import read_json_or, write_text
from anomalib_aoissl.data.finding.listing import device_of, groups_by_stem
from anomalib_aoissl.data.indices import IGNORE_INDEX
from anomalib_aoissl.data.resizing import resize_labels

from .storage.exports import last_export
from .storage.problems import Problem
from .teaching.settings import ModelSettings
from .teaching.worker import Worker

if TYPE_CHECKING:  # torch takes seconds to load: the page is shown first
    from .session import Session
    from .teaching.lesson import Lesson, Suggestion
    from .teaching.ordering import Ranked
    from .teaching.teacher import Painted, Teacher

UNSURE, NOVEL, CHANGED = 1, 2, 4
"""Bits of a suggestion's flags."""

_TEACH, _SUGGEST, _PREPARE, _JUDGE, _ORDER, _GALLERY = range(6)  # what a person waits for goes first


@dataclass(frozen=True)
class Stored:
    """A suggestion, packed.

    Attributes:
        lesson: Number of its lesson.
        size: (height, width).
        data: Classes, then flags, each ``[h, w]`` uint8, deflated.
        info: Shares of what is unsure, novel and changed.
        fine: Whether it is as fine as the page shows it; else it is at the model's size.
    """

    lesson: int
    size: tuple[int, int]
    data: bytes
    info: dict[str, float]
    fine: bool

    def changed(self, suggestion: Suggestion) -> np.ndarray:
        """Return where ``[H, W]`` bool a newer suggestion differs; where this one did, for one of the same lesson."""
        values = np.frombuffer(zlib.decompress(self.data), np.uint8).reshape(2, *self.size)
        height, width = suggestion.classes.shape
        classes, flags = (resize_labels(plane, (height, width)) for plane in values)
        differs: np.ndarray = classes != suggestion.classes
        return (flags & CHANGED) > 0 if self.lesson == suggestion.lesson else differs


class Lessons:
    """Teaches a session's model in a thread of its own.

    Args:
        session: The session.
        settings: Of the model.
    """

    def __init__(self, session: Session, settings: ModelSettings) -> None:
        self.session, self.settings = session, settings
        self.lesson: Lesson | None = None
        self.worker = Worker(self._failed)
        self._exporter = Worker(self._failed)  # takes minutes, in which one goes on painting
        self.exported = last_export(session.folder.root)
        self._stored: dict[str, Stored] = {}
        self._ranked: list[Ranked] = []
        self._progress: dict[str, float | str] = {}
        self._curve_path = session.folder.own / "curve.json"
        points = read_json_or(self._curve_path, [])
        self._curve = [point for point in points if isinstance(point, dict) and "miou" in point]
        self._inferencer: tuple[Path, Any] | None = None
        self._lock = threading.Lock()

    @cached_property
    def teacher(self) -> Teacher:
        """The teacher, with the model."""
        from .teaching.reading import PictureReader
        from .teaching.teacher import Teacher

        return Teacher(PictureReader(self.session.folder, self.settings))

    def start(self) -> None:
        """Begin to compute."""
        self.worker.start()
        self._exporter.start()

    def stop(self) -> None:
        """End."""
        self.worker.stop()
        self._exporter.stop()

    def state(self) -> dict[str, Any]:
        """Return what the page shows of the lessons."""
        lesson, stored = self.lesson, self._stored.copy()  # the worker puts others in meanwhile
        return {
            "lesson": lesson.number if lesson else 0,
            "curve": self._curve[-200:],
            "next": [[one.name, one.reason] for one in self._ranked],
            "progress": dict(self._progress),
            "suggested": {name: one.info for name, one in stored.items() if lesson and one.lesson == lesson.number},
            "exported": str(self.exported.folder.relative_to(self.session.folder.root)) if self.exported else "",
        }

    def reason(self, name: str) -> str:
        """Return why a picture is to be labelled next; nothing where it is not among the first."""
        return next((one.reason for one in self._ranked if one.name == name), "")

    def forget(self) -> None:
        """Forget the lesson, whose classes are others by now."""
        self.lesson = None
        self.worker.put("forget", _TEACH, self._forget)
        self._stored.clear()
        self.session.events.send("forgotten")

    # --- asked for ---------------------------------------------------------------------------------------------------

    def teach(self, name: str) -> None:
        """Have the model learn what is painted, and say what it makes of a picture."""
        pressed = time.monotonic()
        self.worker.drop("judge")  # of a lesson that is the last one no more
        self.worker.put("teach", _TEACH, lambda: self._teach(name, pressed))

    def prepare(self, name: str) -> None:
        """Have ready what the next lesson needs of a picture that is being painted."""
        self.worker.put("prepare", _PREPARE, lambda: self._prepare(name))

    def suggestion(self, name: str, *, fine: bool = False) -> Stored | None:
        """Return the present lesson's suggestion for a picture; None, and an event later, where there is none yet.

        Where a fine one is asked for, and there is a coarse one only, the event tells when it is there.
        """
        lesson, stored = self.lesson, self._stored.get(name)
        if lesson is None:
            return None
        present = stored if stored is not None and stored.lesson == lesson.number else None
        if present is None or (fine and not present.fine):
            self.worker.put(f"suggest {name}", _SUGGEST, lambda: self._suggest(lesson, name, fine))
        return present

    def order(self) -> None:
        """Have the pictures ordered anew."""
        self.worker.put("order", _ORDER, self._order)

    def export(self) -> None:
        """Have the full model fitted and written."""
        self._say("export", "begins")
        self._exporter.put("export", 0, self._export)

    def try_on(self, path: Path) -> bytes:
        """Return the picture of what the exported model finds on a picture, as PNG.

        Raises:
            Problem: If nothing is exported, or the picture does not fit the model.
        """
        import io

        from anomalib_aoissl.deployment.inferencer import SegmentationOpenVINOInferencer

        model = self.exported.model if self.exported else None
        if model is None:
            msg = "There is no exported model yet. Press Export first."
            raise Problem(msg, 409)
        with self._lock:
            if self._inferencer is None or self._inferencer[0] != model:
                self._inferencer = model, SegmentationOpenVINOInferencer(model)
            try:
                found = self._inferencer[1].predict(path)
            except (ValueError, TypeError) as error:
                raise Problem(str(error)) from error
        known = dict(zip(self.session.classes.names, self.session.classes.colours, strict=True))
        colours = [known.get(name, "#808080") for name in found.class_names]  # grey where the class is gone since
        picture = found.overlay(np.array([list(bytes.fromhex(colour[1:])) for colour in colours], np.uint8))
        buffer = io.BytesIO()
        picture.save(buffer, format="PNG", compress_level=1)
        return buffer.getvalue()

    # --- jobs --------------------------------------------------------------------------------------------------------

    def _teach(self, name: str, pressed: float) -> None:
        """Learn what is painted, then go through the folder."""
        self._say("teach", 0.0)
        painted, problems = self._painted(self._learned())
        classes = self.session.classes.names
        lesson = self.lesson = self.teacher.teach(painted, classes)
        info: dict[str, float] = {}
        if name:
            info = self._keep(name, self.teacher.suggest(lesson, name, fine=True), fine=True).info
        self._say("teach", None)
        self.session.events.send(
            "taught",
            lesson=lesson.number,
            name=name,
            seconds=round(time.monotonic() - pressed, 2),
            pictures=len(painted),
            problems=problems,
            **info,
        )
        self.worker.put("judge", _JUDGE, lambda: self._judge(lesson))
        self.order()
        self.worker.put("gallery", _GALLERY, lambda: self._gallery(lesson))  # may take an hour

    def _forget(self) -> None:
        """Let no later lesson go on from one of other classes."""
        if "teacher" in self.__dict__:
            self.teacher.forget()
        self.lesson = None  # one may have been learned since
        self._stored.clear()

    def _prepare(self, name: str) -> None:
        """Compute features of a picture."""
        with suppress(Problem):  # said when it is taught
            self.teacher.prepare(name, self._learned())

    def _learned(self) -> list[str]:
        """Return the pictures that a lesson learns; versions of masks begin with the time."""
        from .teaching.ordering import learned

        return learned(self.session.painted(), self.session.masks.version)

    def _painted(self, names: list[str]) -> tuple[dict[str, Painted], list[str]]:
        """Return what is painted on pictures, and what is wrong with those that are left out."""
        from .teaching.teacher import Painted

        self.session.finish_removal()
        painted, problems = {}, []
        groups = groups_by_stem(self.session.masks.description.groups)
        for name in names:
            try:
                mask, version = self.session.masks.read(name)
                self.teacher.reader.check(name)
                device = device_of(name, self.session.folder.picture(name).files, groups)
                painted[name] = Painted(mask, version, device)
            except Problem as problem:
                problems.append(str(problem))
        return painted, problems

    def _suggest(self, lesson: Lesson, name: str, fine: bool) -> None:
        """Say what a lesson makes of one picture."""
        if self._is_present(lesson):
            info = self._keep(name, self.teacher.suggest(lesson, name, fine=fine), fine=fine).info
            self.session.events.send("suggestion", name=name, lesson=lesson.number, **info)

    def _gallery(self, lesson: Lesson) -> Iterator[None]:
        """Say what a lesson makes of all pictures; those to be labelled next first."""
        ranks = {one.name: rank for rank, one in enumerate(self._ranked)}
        names = sorted((one.name for one in self.session.folder.pictures), key=lambda name: ranks.get(name, len(ranks)))
        for index, name in enumerate(names):
            if not self._is_present(lesson):
                break
            stored = self._stored.get(name)
            if stored is None or stored.lesson != lesson.number:
                with suppress(Problem):  # it is said when the picture is opened
                    info = self._keep(name, self.teacher.suggest(lesson, name)).info
                    self.session.events.send("gallery", name=name, lesson=lesson.number, **info)
            self._say("gallery", (index + 1) / len(names))
            yield
        self._say("gallery", None)
        self.teacher.reader.trim()

    def _judge(self, lesson: Lesson) -> Iterator[None]:
        """Say how good the page is, of pictures that are left out."""
        from .teaching import judging

        for found in judging.judge(self.teacher, lesson, self.worker.pause):
            if found is not None:
                self.teacher.limits = found.limits
                classes = [None if math.isnan(value) else round(value, 4) for value in found.classes]
                point = {
                    "time": round(time.time()),
                    "lesson": lesson.number,
                    "pictures": found.pictures,
                    "miou": round(found.mean_iou, 4),
                    "classes": classes,
                    "painted": sum(self.session.totals()["counts"]),
                }
                self._curve.append(point)
                with suppress(OSError):
                    write_text(self._curve_path, json.dumps(self._curve))
                self.session.events.send("judged", **point)
            yield

    def _order(self) -> Iterator[None]:
        """Order the pictures without paint by what labelling them would bring."""
        from anomalib_aoissl.retrieval.asking.label_next import summarize

        from .teaching import ordering

        painted, lesson = set(self.session.painted()), self.lesson
        names = ordering.pooled([one.name for one in self.session.folder.pictures if one.name not in painted])
        pool = []
        for index, name in enumerate(names):
            with suppress(Problem):
                embeddings = self.teacher.reader.embeddings(name)
                labelled = lesson.model.bank.embeddings if lesson else embeddings[:0]
                pool.append(summarize(name, embeddings, labelled))
            self._say("reading", (index + 1) / len(names))
            yield
        self._say("reading", None)
        self._ranked = ordering.ranked(pool)
        self.session.events.send("next", next=[[one.name, one.reason] for one in self._ranked])

    def _export(self) -> None:
        """Fit the full model and write it."""
        painted, problems = self._painted(self.session.painted())
        names = list(painted)  # those of background alone too: they say what normal ground is
        if not any(one.mask[one.mask != IGNORE_INDEX].any() for one in painted.values()):
            msg = "Nothing is painted yet but background. Paint a class first."
            raise Problem(msg)
        from .teaching import exporting

        parts = self.session.folder, self.session.masks, names, self.settings
        self.exported = exporting.export(*parts, lambda text: self._say("export", text))
        self._say("export", None)
        where = str(self.exported.folder.relative_to(self.session.folder.root))
        note = " ".join([self.exported.note, *(f"Left out: {problem}" for problem in problems)]).strip()
        self.session.events.send("exported", folder=where, model=self.exported.model is not None, note=note)

    def _keep(self, name: str, suggestion: Suggestion, *, fine: bool = False) -> Stored:
        """Keep a suggestion, and what it changed."""
        old = self._stored.get(name)
        classes = suggestion.classes
        changed = np.zeros(classes.shape, bool) if old is None else old.changed(suggestion)
        flags = UNSURE * suggestion.unsure + NOVEL * suggestion.novel + CHANGED * changed
        data = zlib.compress(classes.tobytes() + flags.astype(np.uint8).tobytes(), 1)
        shares = {"unsure": suggestion.unsure, "novel": suggestion.novel, "changed": changed}
        info = {key: round(float(values.mean()), 4) for key, values in shares.items()}
        info["novelty"] = round(suggestion.novelty, 4)
        self._stored[name] = Stored(suggestion.lesson, classes.shape, data, info, fine)
        return self._stored[name]

    def _is_present(self, lesson: Lesson) -> bool:
        """Tell whether a lesson is the last one."""
        return self.lesson is lesson

    def _say(self, what: str, share: float | str | None) -> None:
        """Tell the tabs how far a job is; None for ended."""
        if share is None:
            self._progress.pop(what, None)
        else:
            self._progress[what] = share
        self.session.events.send("progress", what=what, share=share)

    def _failed(self, job: str, error: Exception) -> None:
        """Tell the tabs that a job could not be done."""
        kind = job.split(" ", maxsplit=1)[0]
        names = {"order": "reading", "suggest": "teach"}
        self._say(names.get(kind, kind), None)
        text = str(error) or type(error).__name__
        if not isinstance(error, Problem | ValueError | OSError):
            text = f"{type(error).__name__}: {text}"
        self.session.events.send("problem", job=kind, text=text)
