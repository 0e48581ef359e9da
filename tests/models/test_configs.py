# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The models' configuration files list every argument with its default, as they say."""

import inspect
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from anomalib_aoissl import AOISSLRetrieval, AOISSLSegmenter
from anomalib_aoissl.encoder.options import EncoderOptions

FOLDER = Path(__file__).resolve().parents[2] / "configs" / "model"
COMPONENTS = {"self", "pre_processor", "post_processor", "evaluator", "visualizer"}


@pytest.mark.parametrize(("name", "model"), [("retrieval", AOISSLRetrieval), ("segmenter", AOISSLSegmenter)])
def test_a_configuration_has_the_defaults(name: str, model: type) -> None:
    content = yaml.safe_load((FOLDER / f"aoissl_{name}.yaml").read_text(encoding="utf-8"))
    written = content["model"]["init_args"]
    signature = inspect.signature(model.__init__).parameters
    expected = {key: value.default for key, value in signature.items() if key not in COMPONENTS}
    expected["encoder"] = EncoderOptions(architecture=expected["encoder"])
    assert written == {key: plain(value) for key, value in expected.items()}


def plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return list(value) if isinstance(value, tuple) else value
