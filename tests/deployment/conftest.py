# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Exported models for tests that need no torch: made here where there is torch, else brought along as files."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("openvino")

from anomalib_aoissl import SegmentationOpenVINOInferencer
from anomalib_aoissl.pixel_head.learning import stages

GIVEN = "AOISSL_LINE_MODELS"
"""Environment variable with the folder of `make_models`, on a machine without torch."""


@pytest.fixture(scope="session", autouse=True)
def _short_refits() -> Iterator[None]:
    """Fit pixel heads again in few steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "REFIT_STEPS", 60)
        yield


@pytest.fixture(scope="session")
def models(made_once: Callable[..., Path]) -> Path:
    """Return the folder that `make_models` writes; not to be changed."""
    if GIVEN in os.environ:
        return Path(os.environ[GIVEN])
    pytest.importorskip("torch", reason=f"make the models where torch is, and name their folder in {GIVEN}")
    from make_models import write_models

    with pytest.MonkeyPatch.context() as patch:
        from anomalib_aoissl.pixel_head import filters
        from anomalib_aoissl.pixel_head.learning import labelled

        patch.setattr(stages, "STEPS", stages.STEPS)  # set back what making the models changes
        patch.setattr(labelled, "PIXELS", labelled.PIXELS)
        patch.setattr(filters, "FINE_SIGMAS", filters.FINE_SIGMAS)
        patch.setattr(filters, "COARSE_SIGMAS", filters.COARSE_SIGMAS)
        return made_once("line_models", write_models)


@pytest.fixture(scope="session")
def arrays(models: Path) -> dict[str, np.ndarray]:
    """Return pictures, masks, and what torch says of them."""
    return dict(np.load(models / "arrays.npz"))


@pytest.fixture
def head(models: Path) -> SegmentationOpenVINOInferencer:
    """Return the inferencer of a model with a pixel head."""
    return SegmentationOpenVINOInferencer(models / "head.xml")


@pytest.fixture
def bank(models: Path) -> SegmentationOpenVINOInferencer:
    """Return the inferencer of a model whose bank decides the classes."""
    return SegmentationOpenVINOInferencer(models / "bank.xml")
