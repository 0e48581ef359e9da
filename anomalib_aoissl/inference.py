# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The old place of the inferencer, for one release: `anomalib_aoissl.deployment.inferencer` has it now."""

import warnings

from .deployment.inferencer import SegmentationOpenVINOInferencer
from .deployment.segmentation import Segmentation

__all__ = ["Segmentation", "SegmentationOpenVINOInferencer"]

warnings.warn(
    "anomalib_aoissl.inference is anomalib_aoissl.deployment.inferencer since 0.2.0. Import from there, or from "
    "anomalib_aoissl itself.",
    DeprecationWarning,
    stacklevel=2,
)
