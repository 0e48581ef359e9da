# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""An export tells nobody of the model, where OpenVINO's converter alone does."""

from pathlib import Path
from typing import Any

import pytest
from small_exports import onnx, traced

openvino = pytest.importorskip("openvino")
telemetry = pytest.importorskip("openvino_telemetry")


def test_an_export_sends_no_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from openvino_telemetry.utils.opt_in_checker import ConsentCheckResult, OptInChecker
    from openvino_telemetry.utils.sender import TelemetrySender

    sent: list[Any] = []

    def send(*message: Any) -> None:
        sent.append(message)

    monkeypatch.setenv("HOME", str(tmp_path))  # where it notes what its user allows
    monkeypatch.setattr(OptInChecker, "check", lambda *_: ConsentCheckResult.ACCEPTED)
    monkeypatch.setattr(telemetry.Telemetry, "_SingletonMetaClass__single_instance", None)
    monkeypatch.setattr(TelemetrySender, "send", send)
    openvino.convert_model(onnx())
    assert sent
    sent.clear()
    traced().to_openvino(tmp_path)
    assert not sent
    assert TelemetrySender.send is send
