# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The exports of both models: the graph, its comparison with what was trained, 8 bits, and no telemetry."""
