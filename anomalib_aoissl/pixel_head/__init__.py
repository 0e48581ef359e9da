# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The pixel head: a small network that is fitted in seconds and turns features of a pixel into class probabilities."""
