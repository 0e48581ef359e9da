# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Arguments of 0.1.0 that are gone: Python warns once and goes on, the signature does not know them."""

import inspect
import warnings
from typing import Any

import pytest
from jsonargparse import ArgumentParser

from anomalib_aoissl import AOISSLRetrieval
from anomalib_aoissl.plugin.removed_arguments import removed_from, takes_removed


def test_code_of_0_1_0_runs_with_one_warning_that_names_all(tiny_encoder: dict[str, Any]) -> None:
    known = {"encoder": tiny_encoder, "pretrained": False, "image_size": (64, 96), "k": 7}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DeprecationWarning)
        model = AOISSLRetrieval(**known, learning_seconds=0, context=0.6, bank_shifts=None)
    (warning,) = [w for w in caught if "AOISSLRetrieval" in str(w.message)]
    assert warning.category is DeprecationWarning
    assert warning.filename == __file__
    assert "without effect, removed after 0.1.0: bank_shifts, context, learning_seconds." in str(warning.message)
    assert model.hparams["k"] == 7
    assert not set(model.hparams) & set(removed_from(AOISSLRetrieval))


def test_other_unknown_arguments_are_errors(tiny_encoder: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="learning_minutes"):
        AOISSLRetrieval(encoder=tiny_encoder, learning_minutes=0)  # type: ignore[call-arg]


def test_the_signature_is_that_of_the_class_alone() -> None:
    @takes_removed("old")
    def init(self: Any, new: int = 1) -> None:
        self.new = new

    for signature in (inspect.signature(init), inspect.signature(AOISSLRetrieval.__init__)):
        assert "old" not in signature.parameters
        assert "context" not in signature.parameters
        assert not any(parameter.kind is parameter.VAR_KEYWORD for parameter in signature.parameters.values())
    assert inspect.getfullargspec(init).varkw is None  # Lightning filters a checkpoint's arguments by it
    parser = ArgumentParser()
    parser.add_class_arguments(AOISSLRetrieval, "model")
    assert parser.get_defaults().model.k == 30
    assert "context" not in parser.get_defaults().model
