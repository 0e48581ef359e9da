# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Drawn units as files: images and masks, and the worker processes that draw them."""
