# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The page's server: who may ask, what may be asked, and what other tabs are told."""
