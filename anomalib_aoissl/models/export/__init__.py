# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The exports of both models: one graph, its comparison with what was trained, 8 bits, silence towards the internet."""
