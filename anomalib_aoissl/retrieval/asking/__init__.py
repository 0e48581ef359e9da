# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What one asks a retrieval model: why a pixel has its class, and what to label next."""
