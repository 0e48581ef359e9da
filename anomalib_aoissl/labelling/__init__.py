# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""A page to draw masks on, which learns while one draws; the extra ``label``."""
