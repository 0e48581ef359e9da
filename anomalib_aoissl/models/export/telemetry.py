# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What OpenVINO's tools would report of an export over the internet, which is not sent."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def nothing_reported() -> Iterator[None]:
    """Keep OpenVINO's converter and NNCF from sending messages while the block runs.

    The converter sends about 40 of each model, unless its user has forbidden it, and starts a process for each:
    a copy of this one, whose memory is large. That takes ten times as long as the conversion, and longer offline.
    """
    try:
        from openvino_telemetry.utils.sender import TelemetrySender
    except ImportError:  # where it is not installed, nothing is sent
        yield
        return
    send: Any = TelemetrySender.send
    TelemetrySender.send = _forget
    try:
        yield
    finally:
        TelemetrySender.send = send


def _forget(*_: object, **__: object) -> None:
    """Take a message and send it to nobody."""
