# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Shapes of labels, polygons, boxes and run lengths, to masks and back."""
