# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The tests of the pixel head itself: with the filters that users have."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def _all_filters(all_filters: None) -> None:
    """Give the pixel head all of its filters."""
