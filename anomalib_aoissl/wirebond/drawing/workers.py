# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0
"""Worker processes for drawing: fresh interpreters that read jobs from their input and answer with what they wrote.

Not a process pool of the standard library: forking a process that has torch and its threads loaded may lock up, and a
spawned pool runs the caller's main script again, which takes as long as its imports and fails where it is unguarded.
A fresh interpreter runs this module alone, and loads numpy and OpenCV only.
"""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import cv2

from .writing import Job, write_job

_END_OF_JOB = ""


def run_in_workers(root: Path, jobs: list[Job], count: int) -> Iterator[str]:
    """Yield the stems of all jobs as worker processes finish them.

    Args:
        root: The folder to write to.
        jobs: What to draw; each job goes to one worker.
        count: Number of worker processes.

    Raises:
        RuntimeError: If a worker fails; the message ends with what it wrote to its error output.
    """
    waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
    for job in jobs:
        waiting.put(job)
    answers: queue.SimpleQueue[str | Exception | None] = queue.SimpleQueue()
    count = min(count, len(jobs))
    with tempfile.TemporaryFile() as errors:
        processes = [_start(root, errors) for _ in range(count)]
        try:
            for process in processes:
                threading.Thread(target=_serve, args=(process, waiting, answers), daemon=True).start()
            while count:
                answer = answers.get()
                if answer is None:
                    count -= 1
                elif isinstance(answer, Exception):
                    raise RuntimeError(_failure(root, processes, errors)) from answer
                else:
                    yield answer
        finally:
            for process in processes:
                _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    """End a worker and close its pipes."""
    process.kill()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    process.wait()


def _start(root: Path, errors: IO[bytes]) -> subprocess.Popen[str]:
    """Return a new worker process that finds the same modules as this one."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)}
    command = [sys.executable, "-m", __name__, str(root.absolute())]
    return subprocess.Popen(  # noqa: S603 - this interpreter and this module
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        env=environment,
        text=True,
        encoding="utf-8",
    )


def _serve(
    process: subprocess.Popen[str],
    waiting: queue.SimpleQueue[Job],
    answers: queue.SimpleQueue[str | Exception | None],
) -> None:
    """Hand jobs to one worker until none is left; report stems, then None, or the error that ended the worker."""
    try:
        while (job := _next(waiting)) is not None:
            for stem in _ask(process, job):
                answers.put(stem)
    except Exception as error:  # noqa: BLE001 - handed on to the caller's thread
        answers.put(error)
        return
    answers.put(None)


def _next(waiting: queue.SimpleQueue[Job]) -> Job | None:
    """Return the next job, or None if there is none."""
    try:
        return waiting.get_nowait()
    except queue.Empty:
        return None


def _ask(process: subprocess.Popen[str], job: Job) -> Iterator[str]:
    """Hand a job to a worker and yield the stems that it writes."""
    if process.stdin is None or process.stdout is None:
        msg = "The worker process has no pipes."
        raise OSError(msg)
    process.stdin.write(job.to_json() + "\n")
    process.stdin.flush()
    while (line := process.stdout.readline()) != f"{_END_OF_JOB}\n":
        if not line:
            msg = "The worker process ended early."
            raise EOFError(msg)
        yield line.strip()


def _failure(root: Path, processes: list[subprocess.Popen[str]], errors: IO[bytes]) -> str:
    """Return what to tell about a failed worker."""
    for process in processes:
        process.kill()
        process.wait()
    errors.seek(0)
    detail = errors.read().decode(errors="replace").strip()[-2000:]
    return (
        f"A worker process that draws into {root} failed. Call again to go on where it stopped, "
        f"with workers=0 to draw in this process. The worker said: {detail or 'nothing'}"
    )


def main() -> None:
    """Work off the jobs on the standard input, one a line, and print each written stem."""
    cv2.setNumThreads(1)  # the workers share the cores among themselves
    root = Path(sys.argv[1])
    for line in sys.stdin:
        for stem in write_job(root, Job.from_json(line)):
            print(stem, flush=True)  # noqa: T201 - the protocol with the parent process
        print(_END_OF_JOB, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
