# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Labels of other tools: one content for all formats, made to class-index masks and back; needs no torch."""
