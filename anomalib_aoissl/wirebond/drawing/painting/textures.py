# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0
"""Textures of dies: circuit blocks, memory arrays, routing, power stripes, pixel arrays, light-emitting dies.

Every function draws the share of metal under the passivation, 0 to 1, into an image of the die; ``unit`` is the
length of a reference pixel in samples.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from ..layouts.geometry import Map

Rect = tuple[int, int, int, int]


def die_metal(texture: str, shape: tuple[int, int], rng: np.random.Generator, unit: float) -> Map:
    """Return the metal of a die [H, W], 0 to 1.

    Args:
        texture: One of ``devices.DIE_TEXTURES``.
        shape: Height and width in samples.
        rng: Random numbers of the die.
        unit: Samples per reference pixel.
    """
    image = np.full(shape, 0.3, np.float32)
    _TEXTURES[texture](image, rng, unit)
    return np.clip(cv2.GaussianBlur(image, (0, 0), 0.55), 0, 1).astype(np.float32)


def _split(rect: Rect, rng: np.random.Generator, least: float, depth: int) -> list[Rect]:
    """Return the blocks of a floor plan: a rectangle cut again and again."""
    x, y, width, height = rect
    if depth == 0 or max(width, height) < 2 * least:
        return [rect]
    cut = float(rng.uniform(0.3, 0.7))
    if width > height * float(rng.uniform(0.8, 1.25)):
        first = int(width * cut)
        parts = [(x, y, first, height), (x + first, y, width - first, height)]
    else:
        first = int(height * cut)
        parts = [(x, y, width, first), (x, y + first, width, height - first)]
    return [block for part in parts for block in _split(part, rng, least, depth - 1)]


def _part(image: Map, rect: Rect, gap: int) -> Map:
    """Return the view of a block, less a gap on each side."""
    x, y, width, height = rect
    return image[y + gap : max(y + height - gap, y + gap), x + gap : max(x + width - gap, x + gap)]


def _cells(part: Map, rng: np.random.Generator, unit: float) -> None:
    """Standard cells: rows of short segments of random brightness between supply rails."""
    pitch = max(2, round(2.6 * unit * float(rng.uniform(0.7, 1.3))))
    rows, columns = part.shape[0] // pitch + 1, part.shape[1] // max(1, pitch // 2) + 1
    coarse = rng.random((rows, columns), dtype=np.float32)
    coarse = np.repeat(np.repeat(coarse, pitch, 0), max(1, pitch // 2), 1)[: part.shape[0], : part.shape[1]]
    density = cv2.resize(rng.random((5, 5), dtype=np.float32), part.shape[::-1], interpolation=cv2.INTER_CUBIC)
    part[:] = float(rng.uniform(0.22, 0.36)) + 0.24 * coarse + 0.14 * density
    part[:: max(pitch, 2)] -= 0.1


def _array(part: Map, rng: np.random.Generator, unit: float) -> None:
    """A memory array: fine periodic bit and word lines, banks, and the strips of sense amplifiers between them."""
    level = float(rng.uniform(0.3, 0.6))
    pitch = max(2.2, float(rng.uniform(1.2, 2.0)) * unit)
    y, x = np.arange(part.shape[0])[:, None], np.arange(part.shape[1])[None]
    lines = 0.07 * np.sign(np.sin(2 * np.pi * x / pitch)) + 0.05 * np.sign(np.sin(2 * np.pi * y / (pitch * 1.7)))
    part[:] = level + lines
    bank = max(12, round(float(rng.uniform(26, 44)) * unit))
    strip = max(1, round(2.2 * unit))
    for start in range(bank // 2, part.shape[0], bank):
        part[start : start + strip] = level * 0.45 + 0.2 * rng.random((1, part.shape[1]), dtype=np.float32)
    for start in range(bank, part.shape[1], round(bank * 1.6)):
        part[:, start : start + strip] = level * 0.6


def _plate(part: Map, rng: np.random.Generator, unit: float) -> None:
    """A plane of top metal with stress-relief slots."""
    part[:] = float(rng.uniform(0.68, 0.88))
    pitch = max(6, round(9 * unit))
    for row in range(pitch // 2, part.shape[0], pitch):
        part[row : row + max(1, round(unit * 0.8)), (row // pitch % 2) * pitch // 2 :: pitch] = 0.35


def _dummy_fill(part: Map, rng: np.random.Generator, unit: float) -> None:
    """Dummy fill: a grid of small metal squares."""
    part[:] = 0.26
    pitch, side = max(4, round(4 * unit)), max(2, round(2 * unit))
    for row in range(side):
        for column in range(side):
            part[row::pitch, column::pitch] = float(0.5 + 0.1 * rng.random())


def _routing(part: Map, rng: np.random.Generator, unit: float) -> None:
    """A bundle of parallel lines with a bend."""
    part[:] = 0.3
    height, width = part.shape
    count = int(min(height, width) / max(4.0, 3.2 * unit))
    for number in range(1, max(count, 2)):
        offset = number * max(4.0, 3.2 * unit)
        level = float(rng.uniform(0.55, 0.8))
        corner = int(min(width * 0.6, width - offset * 0.4))
        line = np.array(
            [[0, offset], [corner - offset * 0.5, offset], [corner, offset + height * 0.3], [corner, height]]
        )
        cv2.polylines(part, [line.astype(np.int32)], False, level, max(1, round(1.1 * unit)))


def _passives(part: Map, rng: np.random.Generator, unit: float) -> None:
    """Analogue circuits: capacitor plates, serpentine resistors, wide guard rings."""
    part[:] = 0.3 + 0.05 * float(rng.random())
    height, width = part.shape
    cv2.rectangle(part, (0, 0), (width - 1, height - 1), 0.62, max(1, round(1.4 * unit)))
    if rng.random() < 0.5:
        step = max(4, round(5 * unit))
        for column in range(step, width - step, step):
            cv2.line(part, (column, step), (column, height - step), 0.66, max(1, round(1.6 * unit)))
        return
    side = max(8, round(float(rng.uniform(18, 34)) * unit))
    for row in range(side // 4, height - side, side + side // 4):
        for column in range(side // 4, width - side, side + side // 4):
            level = float(rng.uniform(0.5, 0.8))
            cv2.rectangle(part, (column, row), (column + side, row + side), level, -1)
            cv2.rectangle(part, (column + 2, row + 2), (column + side - 2, row + side - 2), level * 0.85, 1)


def _supply(image: Map, rng: np.random.Generator, unit: float, count: int) -> None:
    """Wide supply stripes of top metal over everything, and the ring of pads and supplies along the edge."""
    height, width = image.shape
    for _ in range(count):
        thick = max(1, round(float(rng.uniform(1.5, 4.5)) * unit))
        level = float(rng.uniform(0.62, 0.85))
        if rng.random() < 0.5:
            row = int(rng.uniform(0.12, 0.88) * height)
            cv2.line(image, (int(0.08 * width), row), (int(0.92 * width), row), level, thick)
        else:
            column = int(rng.uniform(0.12, 0.88) * width)
            cv2.line(image, (column, int(0.08 * height)), (column, int(0.92 * height)), level, thick)
    for inset in (19.0, 22.5):
        edge = round(inset * unit)
        cv2.rectangle(image, (edge, edge), (width - edge, height - edge), 0.7, max(1, round(1.5 * unit)))


def _input_cells(image: Map, rng: np.random.Generator, unit: float) -> None:
    """The ring of input and output cells around the core."""
    depth = round(20 * unit)
    pitch = max(3, round(7 * unit))
    for view in (image[:depth], image[-depth:], image[:, :depth].T, image[:, -depth:].T):
        levels = np.repeat(0.3 + 0.3 * rng.random(view.shape[1] // pitch + 1, dtype=np.float32), pitch)
        view[:] = levels[None, : view.shape[1]]
        view[:, ::pitch] = 0.2


def _blocks(image: Map, rng: np.random.Generator, unit: float, kinds: dict[str, float], least: float = 34) -> None:
    """Fill the core with blocks of the given kinds and their odds."""
    names = list(kinds)
    odds = np.array([kinds[name] for name in names]) / sum(kinds.values())
    edge = round(20 * unit)
    core = (edge, edge, image.shape[1] - 2 * edge, image.shape[0] - 2 * edge)
    _input_cells(image, rng, unit)
    for rect in _split(core, rng, least * unit, 5):
        part = _part(image, rect, max(1, round(0.9 * unit)))
        if min(part.shape) > 6:
            _KINDS[names[int(rng.choice(len(names), p=odds))]](part, rng, unit)


def _logic(image: Map, rng: np.random.Generator, unit: float) -> None:
    _blocks(image, rng, unit, {"cells": 5, "array": 2.5, "routing": 1, "fill": 1, "plate": 0.4})
    _supply(image, rng, unit, 7)


def _memory(image: Map, rng: np.random.Generator, unit: float) -> None:
    edge = round(16 * unit)
    _input_cells(image, rng, unit)
    height, width = image.shape
    across, down = (2, 4) if height > width * 1.2 else (3, 2)
    for row in range(down):
        for column in range(across):
            rect = (
                edge + column * (width - 2 * edge) // across, edge + row * (height - 2 * edge) // down,
                (width - 2 * edge) // across, (height - 2 * edge) // down,
            )  # fmt: skip
            part = _part(image, rect, max(2, round(4 * unit)))
            if min(part.shape) > 6:
                _array(part, np.random.default_rng(7 + int(rng.integers(2))), unit)
    _supply(image, rng, unit, 3)


def _analog(image: Map, rng: np.random.Generator, unit: float) -> None:
    _blocks(image, rng, unit, {"passives": 5, "plate": 2, "routing": 2, "cells": 1.2, "fill": 1}, least=26)
    _supply(image, rng, unit, 4)


def _sensor(image: Map, rng: np.random.Generator, unit: float) -> None:
    _blocks(image, rng, unit, {"cells": 3, "array": 1, "passives": 1})
    height, width = image.shape
    left, top = round(34 * unit), round(34 * unit)
    part = image[top : height - round(30 * unit), left : width - round(48 * unit)]
    pitch = max(2.0, 1.5 * unit)
    y, x = np.arange(part.shape[0])[:, None], np.arange(part.shape[1])[None]
    bayer = 0.04 * (np.sin(2 * np.pi * x / pitch) * np.sin(2 * np.pi * y / pitch))
    tone = cv2.resize(rng.random((3, 3), dtype=np.float32), part.shape[::-1], interpolation=cv2.INTER_CUBIC)
    part[:] = 0.1 + bayer + 0.06 * tone
    cv2.rectangle(part, (0, 0), (part.shape[1] - 1, part.shape[0] - 1), 0.75, max(1, round(2.5 * unit)))


def _led(image: Map, rng: np.random.Generator, unit: float) -> None:
    height, width = image.shape
    pitch = max(3.0, 2.4 * unit)
    y, x = np.arange(height)[:, None], np.arange(width)[None]
    image[:] = 0.5 + 0.05 * np.sin(2 * np.pi * x / pitch) * np.sin(2 * np.pi * (y + x * 0.5) / pitch)
    border = round(4 * unit)
    cv2.rectangle(image, (border, border), (width - border, height - border), 0.18, max(1, round(1.6 * unit)))
    thick = max(1, round(2.0 * unit))
    for sign in (0.2, 0.8):
        row = int(height * sign)
        cv2.line(image, (int(width * 0.18), row), (int(width * 0.74), row), 0.9, thick)
    cv2.line(image, (int(width * 0.18), int(height * 0.5)), (int(width * 0.86), int(height * 0.5)), 0.12, thick)
    image += float(rng.uniform(-0.04, 0.04))


def _power(image: Map, rng: np.random.Generator, unit: float) -> None:
    height, width = image.shape
    image[:] = 0.3
    border = round(7 * unit)
    for ring in range(3):
        inset = round((3 + 2.4 * ring) * unit)
        cv2.rectangle(image, (inset, inset), (width - inset, height - inset), 0.6, max(1, round(0.9 * unit)))
    part = image[border * 2 : height - border * 2, border * 2 : width - border * 2]
    part[:] = 0.8
    pitch = max(3.0, 2.6 * unit)
    part += 0.05 * np.sign(np.sin(2 * np.pi * np.arange(part.shape[0])[:, None] / pitch)).astype(np.float32)
    for share in (0.33, 0.66):
        row = int(part.shape[0] * share)
        part[row : row + max(2, round(2.4 * unit))] = 0.3
    column = int(part.shape[1] * float(rng.uniform(0.45, 0.55)))
    part[:, column : column + max(2, round(2.4 * unit))] = 0.3


def _mems(image: Map, rng: np.random.Generator, unit: float) -> None:
    height, width = image.shape
    image[:] = 0.34
    center, radius = (width // 2, height // 2), int(min(height, width) * 0.38)
    cv2.circle(image, center, radius, 0.62, -1)
    step = max(4, round(6 * unit))
    for row in range(center[1] - radius, center[1] + radius, step):
        shift = (row // step % 2) * step // 2
        for column in range(center[0] - radius + shift, center[0] + radius, step):
            if (row - center[1]) ** 2 + (column - center[0]) ** 2 < (0.88 * radius) ** 2:
                cv2.circle(image, (column, row), max(1, round(1.1 * unit)), 0.12, -1)
    for share, level in ((1.0, 0.85), (0.93, 0.2), (1.12, 0.55)):
        cv2.circle(image, center, int(radius * share), level, max(1, round(1.6 * unit)))
    for angle in np.linspace(0.3, 0.3 + 2 * np.pi, 6, endpoint=False) + float(rng.uniform(0, 0.2)):
        end = (int(center[0] + 1.24 * radius * np.cos(angle)), int(center[1] + 1.24 * radius * np.sin(angle)))
        start = (int(center[0] + radius * np.cos(angle)), int(center[1] + radius * np.sin(angle)))
        cv2.line(image, start, end, 0.8, max(2, round(4 * unit)))


_Draw = Callable[[Map, np.random.Generator, float], None]
_KINDS: dict[str, _Draw] = {
    "cells": _cells,
    "array": _array,
    "plate": _plate,
    "fill": _dummy_fill,
    "routing": _routing,
    "passives": _passives,
}
_TEXTURES: dict[str, _Draw] = {
    "logic": _logic,
    "memory": _memory,
    "analog": _analog,
    "sensor": _sensor,
    "led": _led,
    "power": _power,
    "mems": _mems,
}
