# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""A checksum at the end of an ONNX file, written and checked without onnx.

Protocol buffers that follow each other in a file are one message. So a last property, appended to the file, holds the
checksum of all bytes before it, and any reader of ONNX sees one property more.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

_KEY = b"aoissl_sha256"
_DIGITS = 64
# ModelProto.metadata_props is field 14; of its StringStringEntryProto, key is field 1 and value field 2: each a byte
# that says so, one with the length, and the text.
_ENTRY = bytes([0x0A, len(_KEY)]) + _KEY + bytes([0x12, _DIGITS])
_PROPERTY = bytes([0x72, len(_ENTRY) + _DIGITS]) + _ENTRY


def append_checksum(path: Path) -> None:
    """Append the property with the checksum to an ONNX file."""
    content = path.read_bytes()
    with path.open("ab") as file:
        file.write(_PROPERTY + hashlib.sha256(content).hexdigest().encode())


def read_onnx(path: Path) -> bytes:
    """Return the bytes of an ONNX file.

    Raises:
        ValueError: If its checksum says that it was changed; a file without one is not known.
    """
    content = path.read_bytes()
    whole, end = content[: -len(_PROPERTY) - _DIGITS], content[-len(_PROPERTY) - _DIGITS :]
    if end.startswith(_PROPERTY) and hashlib.sha256(whole).hexdigest().encode() != end[len(_PROPERTY) :]:
        msg = "its checksum is another: the file was changed"
        raise ValueError(msg)
    return content
