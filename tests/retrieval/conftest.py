# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""A small model, its export, and the inferencer of it, for the tests that edit exported banks."""

from pathlib import Path

import pytest
from editable_models import make_model

from anomalib_aoissl import AOISSLRetrieval
from anomalib_aoissl.inference import SegmentationOpenVINOInferencer


@pytest.fixture(scope="module")
def model() -> AOISSLRetrieval:
    return make_model(3, seed=1, bank_size=70)


@pytest.fixture(scope="module")
def xml(model: AOISSLRetrieval, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model.to_openvino(tmp_path_factory.mktemp("export"))


@pytest.fixture
def inferencer(xml: Path) -> SegmentationOpenVINOInferencer:
    return SegmentationOpenVINOInferencer(xml)
