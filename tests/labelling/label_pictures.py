# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Pictures with known classes, and how the tests of the page ask its server."""

import json
import time
from collections.abc import Callable
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np

SIZE = (64, 96)


def picture(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Return a noisy picture ``[H, W, 3]`` uint8: bright at the left, dark at the right, a red bar across."""
    height, width = size
    random = np.random.default_rng(seed)
    image = random.normal(40, 6, (height, width, 3))
    image[:, : width // 2] += 130
    image[height // 2 - 4 : height // 2 + 4] = random.normal(0, 6, (8, width, 3)) + np.array([200, 30, 30])
    return image.clip(0, 255).astype(np.uint8)


def truth(size: tuple[int, int] = SIZE) -> np.ndarray:
    """Return the classes ``[H, W]`` of `picture`: 0 dark, 1 bright, 2 the bar."""
    mask = np.zeros(size, np.uint8)
    mask[:, : size[1] // 2] = 1
    mask[size[0] // 2 - 4 : size[0] // 2 + 4] = 2
    return mask


def scribbles(size: tuple[int, int] = SIZE) -> np.ndarray:
    """Return a mask of a few strokes of each class; unpainted else."""
    mask, classes = np.full(size, 255, np.uint8), truth(size)
    for rows in (slice(4, 12), slice(size[0] // 2 - 3, size[0] // 2 + 3)):
        mask[rows, 8:-8] = classes[rows, 8:-8]
    return mask


def asker(port: int) -> Callable[..., tuple[int, Any]]:
    """Return a function that sends a request and gives status and content."""

    def ask(path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
        given = {"x-labelling": "1", **{key.replace("_", "-"): value for key, value in headers.items()}}
        given = {key: value for key, value in given.items() if value}
        request = Request(f"http://127.0.0.1:{port}{path}", data=body, headers=given)
        try:
            with urlopen(request, timeout=20) as answer:  # noqa: S310
                status, content = answer.status, answer.read()
        except HTTPError as error:
            status, content = error.code, error.read()
        try:
            return status, json.loads(content)
        except ValueError:
            return status, content

    return ask


def until(true: Callable[[], Any], seconds: float = 60) -> Any:
    """Return what a function gives once it is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = true()
        if value:
            return value
        time.sleep(0.02)
    msg = "It did not come true."
    raise AssertionError(msg)
