# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What the page learns: tokens, a short fit, how good it is, what to label next, the export."""
