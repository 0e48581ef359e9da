# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What is known of a dataset: classes, colours, planes and bits, from its files or from the user."""
