# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What runs on the line, without torch: inferencer, exported bank and head, edits, refitting."""
