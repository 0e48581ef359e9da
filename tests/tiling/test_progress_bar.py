# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""A long picture's bar: what it writes to a terminal, and that it writes nothing elsewhere."""

import io
import sys
from contextlib import closing
from types import SimpleNamespace

import numpy as np
import pytest

from anomalib_aoissl.deployment.tiles import model as tiled
from anomalib_aoissl.deployment.tiles.blending import CutPicture, answered
from anomalib_aoissl.deployment.tiles.tiling import Tiling

CLEARED = "\r\x1b[K"


class Stream(io.StringIO):
    """A stream that is a terminal or is not."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


def written(monkeypatch: pytest.MonkeyPatch, *, terminal: bool, total: int, steps: list[int]) -> list[str]:
    """Return what a bar writes, a text for each carriage return, where each tile takes two seconds."""
    stream, now = Stream(terminal), [100.0]
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(tiled, "time", SimpleNamespace(monotonic=lambda: now[0]))
    with tiled._Bar(total) as bar:
        for step in steps:
            now[0] += 2 * step
            bar.add(step)
    return stream.getvalue().split("\r")[1:]


def test_a_terminal_sees_how_far_it_is_and_how_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert written(monkeypatch, terminal=True, total=120, steps=[40, 8, 72]) == [
        f"Tiles [{'#' * 10}{'.' * 20}] 40 of 120, 160 s left ",
        f"Tiles [{'#' * 12}{'.' * 18}] 48 of 120, 144 s left ",
        f"Tiles [{'#' * 30}] 120 of 120, 0 s left ",
        "\x1b[K",  # what is written next begins in an empty line
    ]


@pytest.mark.parametrize(("terminal", "total"), [(False, 120), (True, 63)])
def test_a_file_or_a_short_picture_sees_nothing(monkeypatch: pytest.MonkeyPatch, terminal: bool, total: int) -> None:
    assert written(monkeypatch, terminal=terminal, total=total, steps=[total]) == []


def test_a_program_without_an_error_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as one that Windows starts without a console."""
    monkeypatch.setattr(sys, "stderr", None)
    with tiled._Bar(120) as bar:
        bar.add(120)


def blend(model: tiled.TiledModel, value: float) -> None:
    """Have a model put together a picture of 64 tiles in eight rows, of one value."""
    planes = np.full((2, 64, 64), value, np.float32)
    picture = CutPicture(planes, Tiling((8, 8), 0).grid((64, 64)), lambda tiles: tiles)
    with closing(answered([(None, picture)], 1)) as pictures:
        model.blended(picture, next(pictures)[1])


@pytest.mark.parametrize("terminal", [True, False])
def test_a_picture_shows_its_bar(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    """A row of tiles at a time; an error clears it too."""
    stream = Stream(terminal)
    monkeypatch.setattr(sys, "stderr", stream)
    model = object.__new__(tiled.TiledModel)
    model._names, model._patches = ["class_probabilities"], None
    blend(model, 1)
    with pytest.raises(ValueError, match="NaN"):
        blend(model, np.nan)
    if not terminal:
        assert stream.getvalue() == ""
        return
    first, second = stream.getvalue().split(CLEARED)[:2]
    counts = [text.split("] ")[1].split(",")[0] for text in first.split("\r")[1:]]
    assert counts == [f"{8 * row} of 64" for row in range(1, 9)]
    assert second.count("\r") == 1  # the first strip had the error
    assert stream.getvalue().endswith(CLEARED)
