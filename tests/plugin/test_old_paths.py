# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Modules under their old names, for one release."""

import importlib
import sys

import pytest

pytest.importorskip("openvino")


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        ("inference", "deployment.inferencer", "SegmentationOpenVINOInferencer"),
        ("data.description", "data.describing.description", "read_description"),
    ],
)
def test_an_old_path_gives_the_same_with_a_warning(old: str, new: str, name: str) -> None:
    sys.modules.pop(f"anomalib_aoissl.{old}", None)
    with pytest.warns(DeprecationWarning, match=rf"anomalib_aoissl\.{new}"):
        module = importlib.import_module(f"anomalib_aoissl.{old}")
    assert getattr(module, name) is getattr(importlib.import_module(f"anomalib_aoissl.{new}"), name)
