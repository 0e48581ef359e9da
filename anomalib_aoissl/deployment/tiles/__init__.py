# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Pictures of any size by the model of one tile: cutting, blending, writing."""
