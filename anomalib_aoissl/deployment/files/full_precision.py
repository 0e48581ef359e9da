# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""A serialised graph whose nodes ask to be computed in the precision that they are written in.

Where a processor has bfloat16, OpenVINO computes in it unless it is told otherwise at compilation. An IR cannot ask
for another precision of the whole graph: of ``runtime_options`` the CPU plugin reads those of caches alone (2026.4).
It can of each node, by the attribute that OpenVINO's own transformations keep precision-sensitive nodes with. Its class
has no Python binding, so the attribute is written into the text of the graph.
"""

from __future__ import annotations

import re

_NAME = b'"DisablePrecisionConversion"'
_ATTRIBUTE = b"<attribute name=" + _NAME + b' version="0" value="dynamic:f16,bf16" />'
"""Not in 16 bits. Whole numbers may become shorter: OpenVINO counts sizes in 32 bits."""

_NOT_COMPUTED = (b"Const", b"Parameter", b"Result")
"""Types of layers that hold numbers."""

_FROM_SIZES = re.compile(rb'<input>\s*<port id="0" precision="I(32|64)"')
"""What a layer has that converts sizes, which 16 bits cannot count; others convert stored weights."""

_LAYER = re.compile(rb'(<layer [^>]*? type="(\w+)"[^>]*>)(.*?)(</layer>)', re.DOTALL)
_DATA = re.compile(rb"\s*<data [^>]*/>")


def keep_precision(graph: bytes) -> bytes:
    """Return the text of an OpenVINO graph whose layers that compute are marked; marked ones stay as they are."""
    return _LAYER.sub(_marked, graph)


def _marked(layer: re.Match[bytes]) -> bytes:
    """Return the text of a layer with the attribute, between its data and its ports."""
    opening, kind, content, closing = layer.groups()
    if kind in _NOT_COMPUTED or _NAME in content or (kind == b"Convert" and not _FROM_SIZES.search(content)):
        return layer[0]
    if b"<rt_info>" in content:
        return opening + content.replace(b"<rt_info>", b"<rt_info>" + _ATTRIBUTE, 1) + closing
    data = _DATA.match(content)
    place = data.end() if data else 0
    return opening + content[:place] + b"<rt_info>" + _ATTRIBUTE + b"</rt_info>" + content[place:] + closing
