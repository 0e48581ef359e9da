# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The memory bank as arrays: content, files, condensing; without torch."""
