# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The memory bank of the retrieval model: its entries, its files, its edits."""
