# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""One thread that computes: what a person waits for first, everything else step by step in between."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

logger = logging.getLogger(__name__)

_ENDED = object()


class Interrupted(Exception):  # noqa: N818 - no error: the work goes on later
    """A step was given up, since a person waits for something else; it is done again."""


@dataclass
class Job:
    """Work in steps.

    Attributes:
        name: Of what it is; a new job of the name takes its place.
        priority: The lowest goes first.
        begin: Gives the steps; None of a job that it does at once.
        steps: They, once begun.
    """

    name: str
    priority: int
    begin: Callable[[], Iterator[Any] | None]
    steps: Iterator[Any] | None = None


class Worker:
    """Runs jobs in a thread of its own.

    Args:
        failed: Is told the name of a job and the error that ended it.
    """

    def __init__(self, failed: Callable[[str, Exception], None]) -> None:
        self._failed = failed
        self._jobs: dict[str, Job] = {}
        self._current: Job | None = None
        self._changed = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="labelling", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def stop(self) -> None:
        """End after the present step."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def put(self, name: str, priority: int, begin: Callable[[], Iterator[Any] | None]) -> None:
        """Add a job; one of the same name is given up."""
        with self._changed:
            self._jobs[name] = Job(name, priority, begin)
            self._changed.notify_all()

    def drop(self, *names: str) -> None:
        """Give up jobs."""
        with self._changed:
            for name in names:
                self._jobs.pop(name, None)

    def pause(self, _: float = 0.0) -> None:
        """Give way to a job that goes before the present one; to be called now and then in long steps.

        Raises:
            Interrupted: If there is one.
        """
        with self._changed:
            current = self._current
            if current is not None and any(job.priority < current.priority for job in self._jobs.values()):
                raise Interrupted

    def idle(self) -> bool:
        """Tell whether nothing is left to do."""
        with self._changed:
            return not self._jobs

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._jobs and not self._ended:
                    self._changed.wait()
                if self._ended:
                    return
                job = self._current = min(self._jobs.values(), key=lambda job: job.priority)
            done = self._step(job)
            with self._changed:
                self._current = None
                if done and self._jobs.get(job.name) is job:
                    del self._jobs[job.name]

    def _step(self, job: Job) -> bool:
        """Take a step of a job; tell whether it has ended."""
        try:
            job.steps = job.steps or job.begin()
            return job.steps is None or next(job.steps, _ENDED) is _ENDED
        except Interrupted:
            job.steps = None  # a generator that raised is over: the job begins anew
            return False
        except Exception as error:
            logger.debug("%s", job.name, exc_info=True)
            self._failed(job.name, error)
            return True
