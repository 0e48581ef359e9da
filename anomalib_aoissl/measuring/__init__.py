# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Parts in masks as numbers: count, area, length and width along the centre line; needs no torch."""
