# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""`AOISSLSegmenter`: the pretrained encoder with a decoder, trained on labels under a fixed budget."""
