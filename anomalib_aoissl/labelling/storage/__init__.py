# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What the page keeps in the folder: pictures, masks with their history, classes."""
