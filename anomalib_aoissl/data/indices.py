# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The two mask values with a fixed meaning; in a file of its own, so that inference needs no torch."""

IGNORE_INDEX = 255
"""Mask value of a pixel that is never counted and never votes; bank, loss and metric share it."""

BACKGROUND_INDEX = 0
"""Mask value of the background class."""
