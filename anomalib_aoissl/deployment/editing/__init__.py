# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Edits of an exported model: entries of its bank come and go, and its pixel head is fitted again."""
