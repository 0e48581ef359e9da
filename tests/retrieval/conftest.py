# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Small models, their exports, and the inferencers of them, for the tests that edit exported banks."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from editable_models import bank_files, make_model, traced_once, write

from anomalib_aoissl import AOISSLRetrieval
from anomalib_aoissl.deployment.inferencer import SegmentationOpenVINOInferencer

EXPORTED = Path("weights", "openvino", "model.xml")


@pytest.fixture(autouse=True, scope="session")
def _short_fits(short_fits: None) -> None:
    """Fit pixel heads quickly in all tests of this folder."""


@pytest.fixture(scope="session")
def model() -> AOISSLRetrieval:
    """Return a model whose bank decides the classes, and whose exports share one graph; not to be changed."""
    return torch.load(bank_files() / "model.pt", weights_only=False)


@pytest.fixture(scope="session")
def xml() -> Path:
    return bank_files() / EXPORTED


@pytest.fixture
def inferencer(xml: Path) -> SegmentationOpenVINOInferencer:
    return SegmentationOpenVINOInferencer(xml)


@pytest.fixture(scope="module")
def head_files(all_filters: None, made_once: Callable[..., Path]) -> Path:
    """Return a folder with a model with a pixel head that has all filters, and its export."""
    made = partial(make_model, 3, seed=1, bank={"size": 70})
    return made_once("head_model", lambda folder: write(traced_once(made()), folder))


@pytest.fixture(scope="module")
def head_model(head_files: Path) -> AOISSLRetrieval:
    """Return a model with a pixel head, whose exports share one graph; not to be changed."""
    return torch.load(head_files / "model.pt", weights_only=False)


@pytest.fixture(scope="module")
def head_xml(head_files: Path) -> Path:
    return head_files / EXPORTED


@pytest.fixture
def head_inferencer(head_xml: Path) -> SegmentationOpenVINOInferencer:
    return SegmentationOpenVINOInferencer(head_xml)
