# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Retrieval: masks read out of a memory bank of labelled patches by similarity."""
