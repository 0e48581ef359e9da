# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Many pictures in tiles: tiles of the next keep the device busy while one is read or put together; needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import numpy as np

from anomalib_aoissl.deployment.many import PictureError, check_many, in_order, picture_error

from .blending import Answers, CutPicture, answered

_Result = TypeVar("_Result")


def each_in_tiles(
    cut: Callable[[str | Path | np.ndarray], tuple[CutPicture, Callable[[Answers], _Result]]],
    images: Iterable[str | Path | np.ndarray],
    workers: int,
    *,
    return_errors: bool,
) -> Iterator[_Result | PictureError]:
    """Return an iterator over what is made of the tiles of many images, in order; errors name the image.

    One image is read ahead, and twice as many batches of tiles as there are workers are computed ahead: those of a part
    of a large image, or of several small ones.

    Args:
        cut: Reads an image, and gives its tiles and what makes a result of their answers; another thread calls it.
        images: Files or arrays.
        workers: Batches of tiles that are asked at once.
        return_errors: Whether an error stands in the place of the result; else it is raised.

    Raises:
        TypeError: If ``images`` is one image.
    """
    check_many(images)
    return _finished(_read(cut, images), workers, return_errors)


_Known = tuple[int, str | Path | None, Callable[[Answers], _Result] | PictureError]
"""The place of an image, its file, and what makes a result of its answers or what is wrong with it."""


def _read(
    cut: Callable[[str | Path | np.ndarray], tuple[CutPicture, Callable[[Answers], _Result]]],
    images: Iterable[str | Path | np.ndarray],
) -> Iterator[tuple[_Known[_Result], CutPicture | None]]:
    """Return an iterator over the images and their tiles, read ahead."""

    def known(index: int, image: str | Path | np.ndarray) -> tuple[_Known[_Result], CutPicture | None]:
        file = image if isinstance(image, str | Path) else None
        try:
            picture, finish = cut(image)
        except Exception as error:  # noqa: BLE001 - stands in the place of the result
            return (index, file, picture_error(error, index, file)), None
        return (index, file, finish), picture

    return in_order(known, images, 1)


def _finished(
    pictures: Iterable[tuple[_Known[_Result], CutPicture | None]], workers: int, return_errors: bool
) -> Iterator[_Result | PictureError]:
    """Yield the result of each picture, or the error in its place."""
    with closing(answered(pictures, workers)) as answers_of:
        for (index, file, finish), answers in answers_of:
            result: _Result | PictureError
            try:
                result = finish if isinstance(finish, PictureError) else finish(answers)
            except Exception as error:  # noqa: BLE001 - as above
                result = picture_error(error, index, file)
            if isinstance(result, PictureError) and not return_errors:
                raise result
            yield result
            del result  # else it would be held until the next one is there
