# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What an export is told by the command line and from Python, and where its log goes."""
