# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""A study's CSV as one page: claims, curves, classes, pictures, failures; needs numpy, matplotlib and Pillow alone."""
