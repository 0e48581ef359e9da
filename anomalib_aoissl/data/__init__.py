# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Data of the plugin: the item contract, reading of files, and the two datamodules."""
