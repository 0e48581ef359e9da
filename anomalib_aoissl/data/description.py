# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The old place of the description of a dataset, for one release: `anomalib_aoissl.data.describing` has it now."""

import warnings

from .describing.description import DatasetDescription, read_description

__all__ = ["DatasetDescription", "read_description"]

warnings.warn(
    "anomalib_aoissl.data.description is anomalib_aoissl.data.describing.description since 0.2.0. Import from there.",
    DeprecationWarning,
    stacklevel=2,
)
