# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Small models, their exports, and the inferencers of them, for the tests that edit exported banks."""

from pathlib import Path

import pytest
from editable_models import make_model

from anomalib_aoissl import AOISSLRetrieval
from anomalib_aoissl.deployment.inferencer import SegmentationOpenVINOInferencer


@pytest.fixture(autouse=True, scope="session")
def _short_fits(short_fits: None) -> None:
    """Fit pixel heads quickly in all tests of this folder."""


@pytest.fixture(scope="session")
def model() -> AOISSLRetrieval:
    """Return a model whose bank decides the classes; not to be changed."""
    return make_model(3, seed=1, bank={"size": 70}, head=None)


@pytest.fixture(scope="session")
def xml(model: AOISSLRetrieval, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model.to_openvino(tmp_path_factory.mktemp("export"))


@pytest.fixture
def inferencer(xml: Path) -> SegmentationOpenVINOInferencer:
    return SegmentationOpenVINOInferencer(xml)


@pytest.fixture(scope="session")
def head_model() -> AOISSLRetrieval:
    """Return a model with a pixel head; not to be changed."""
    return make_model(3, seed=1, bank={"size": 70})


@pytest.fixture(scope="session")
def head_xml(head_model: AOISSLRetrieval, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return head_model.to_openvino(tmp_path_factory.mktemp("export_with_head"))


@pytest.fixture
def head_inferencer(head_xml: Path) -> SegmentationOpenVINOInferencer:
    return SegmentationOpenVINOInferencer(head_xml)
