# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""A function of many items, several at once, with the results in order and a bounded look-ahead; needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Semaphore, Thread
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")
Result = TypeVar("Result")


class PictureError(ValueError):
    """A picture among many that could not be segmented.

    Attributes:
        index: Its place among the pictures, from 0.
        image: Its file, or None for an array.
    """

    def __init__(self, message: str, index: int, image: str | None) -> None:
        super().__init__(message)
        self.index, self.image = index, image


def each_in_order(
    predict: Callable[[str | Path | np.ndarray], Result],
    images: Iterable[str | Path | np.ndarray],
    workers: int,
    *,
    return_errors: bool,
) -> Iterator[Result | PictureError]:
    """Return an iterator over the predictions of many images, whose errors name the image.

    Args:
        predict: Called by several threads at once.
        images: Files or arrays.
        workers: Threads.
        return_errors: Whether an error stands in the place of the result; else it is raised.

    Raises:
        TypeError: If ``images`` is one image.
    """
    check_many(images)

    def named(index: int, image: str | Path | np.ndarray) -> Result | PictureError:
        try:
            return predict(image)
        except Exception as error:
            problem = picture_error(error, index, image)
            if not return_errors:
                raise problem from error
            return problem

    return in_order(named, images, workers)


def check_many(images: Iterable[str | Path | np.ndarray]) -> None:
    """Validate that images are many.

    Raises:
        TypeError: If they are one image.
    """
    if isinstance(images, str | Path | np.ndarray):
        msg = f"images must be many, such as a list of paths or arrays, got one {type(images).__name__}. Call predict."
        raise TypeError(msg)


def picture_error(error: Exception, index: int, image: str | Path | np.ndarray | None) -> PictureError:
    """Return the error of an image among many as one that names it, by its file or its place."""
    file = str(image) if isinstance(image, str | Path) else None
    message = str(error) if file and file in str(error) else f"{file or f'image {index}'}: {error}"
    problem = PictureError(message, index, file)
    problem.__cause__ = error
    return problem


def in_order(
    function: Callable[[int, Item], Result], items: Iterable[Item], workers: int
) -> Generator[Result, None, None]:
    """Yield the function of each index and item, in order, computed by several threads.

    A thread of its own takes the items. So a result comes as soon as it is there, however long the next item takes, as
    with a camera. At most twice as many items as there are workers have been taken and not been asked for as results.

    Args:
        function: Called by the workers, several at once.
        items: What may have no end. It is read by another thread than the caller's.
        workers: Threads that call the function.

    Raises:
        Exception: What the function raises, in the place of the result; what the items raise, after all results.
    """
    places, stop = Semaphore(2 * workers), Event()
    results: SimpleQueue[Future[Result] | BaseException | None] = SimpleQueue()

    def feed() -> None:
        end: BaseException | None = None
        try:
            source, numbers = iter(items), count()  # enumerate would hold an item until the next one comes
            while places.acquire() and not stop.is_set():
                results.put(pool.submit(function, next(numbers), next(source)))
        except StopIteration:
            pass
        except BaseException as error:  # noqa: BLE001 - is raised where the results are read
            end = error
        results.put(end)

    pool = ThreadPoolExecutor(workers, thread_name_prefix="segment")
    Thread(target=feed, name="feed", daemon=True).start()
    try:
        while isinstance(result := results.get(), Future):
            yield result.result()
            del result  # else it would be held until the next one is there
            places.release()
        if result is not None:
            raise result
    finally:
        stop.set()
        places.release()
        pool.shutdown(wait=True, cancel_futures=True)
