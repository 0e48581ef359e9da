# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""A small model, its export, and the inferencer of it, for the tests that edit exported banks."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from editable_models import make_model

from anomalib_aoissl import AOISSLRetrieval
from anomalib_aoissl.inference import SegmentationOpenVINOInferencer
from anomalib_aoissl.pixel_head import labelled, stages


@pytest.fixture(autouse=True, scope="session")
def _short_fits() -> Iterator[None]:
    """Fit the pixel head in few steps to few pixels: what it can is not what these tests are about."""
    patch = pytest.MonkeyPatch()
    patch.setattr(stages, "STEPS", 40)
    patch.setattr(stages, "REFIT_STEPS", 20)
    patch.setattr(labelled, "PIXELS", 3000)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def model() -> AOISSLRetrieval:
    return make_model(3, seed=1, bank_size=70)


@pytest.fixture(scope="module")
def xml(model: AOISSLRetrieval, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model.to_openvino(tmp_path_factory.mktemp("export"))


@pytest.fixture
def inferencer(xml: Path) -> SegmentationOpenVINOInferencer:
    return SegmentationOpenVINOInferencer(xml)
