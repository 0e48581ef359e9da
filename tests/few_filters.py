# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Few filters for pixel heads: two widths in place of seven, whose tracing takes most of an export's time."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

Filters = dict[str, tuple[float, ...]]

FEW: Filters = {"FINE_SIGMAS": (1.0,), "COARSE_SIGMAS": (10.0,)}


@contextmanager
def filters_of(widths: Filters) -> Iterator[Filters]:
    """Give pixel heads filters of other widths while the block runs; the value is those before."""
    from anomalib_aoissl.pixel_head import filters

    before = {name: getattr(filters, name) for name in widths}
    with pytest.MonkeyPatch.context() as patch:
        for name, sigmas in widths.items():
            patch.setattr(filters, name, sigmas)
        yield before
