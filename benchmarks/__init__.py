# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Measurements; ``python -m benchmarks.study`` from a checkout runs the study."""
