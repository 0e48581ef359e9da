# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""An inferencer with tiles compiles the model of a tile, and nothing that nobody asks for."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tiled_models import array_of, drawn

from anomalib_aoissl import SegmentationOpenVINOInferencer
from anomalib_aoissl.deployment import requests
from anomalib_aoissl.deployment.doctor.diagnosis import diagnose
from anomalib_aoissl.deployment.files.model_file import core
from anomalib_aoissl.deployment.tiles.graph import LIGHT


@pytest.fixture
def compiles(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Return a list that gets, of each model that OpenVINO compiles, the names of its inputs after the first."""
    seen: list[list[str]] = []

    def compile_model(model: Any, *arguments: Any) -> Any:
        seen.append([node.get_friendly_name() for node in model.get_parameters()][1:])
        return core().compile_model(model, *arguments)

    counting = SimpleNamespace(compile_model=compile_model, available_devices=core().available_devices)
    monkeypatch.setattr(requests, "core", lambda: counting)
    return seen


def test_what_is_compiled_with_tiles(tiled_xml: Path, compiles: list[list[str]]) -> None:
    inferencer = SegmentationOpenVINOInferencer(tiled_xml)
    picture = array_of(drawn(1, (60, 90), seed=9)[0][0])
    inferencer.predict(picture)
    list(inferencer.predict_many([picture]))
    inferencer.predict_batch([picture])
    assert compiles == [list(LIGHT)]
    inferencer.explain(picture, (3, 4))
    assert compiles == [list(LIGHT)] * 2  # the embeddings of a tile, once
    inferencer.explain(picture, (40, 50))
    assert len(compiles) == 2
    inferencer.remove(image="first", refit=False)
    inferencer.predict(picture)
    assert compiles == [list(LIGHT)] * 3


def test_the_doctor_knows_the_size_of_a_tile(tiled_xml: Path, compiles: list[list[str]]) -> None:
    facts = diagnose(tiled_xml, rounds=1).facts
    assert facts["model_size"] == [48, 64]
    assert compiles == [list(LIGHT)]
